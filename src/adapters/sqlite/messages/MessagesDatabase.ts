/** The messages database as a database class: sessions of the embedded broker. */
import type { DatabaseDefinition } from "../Database.ts"
import { messagesMigrations } from "./MessagesSchema.ts"
import { type MqttMethods, mqttMethods } from "./MqttRows.ts"

export const messagesDatabase: DatabaseDefinition<MqttMethods> = {
  name: "messages",
  migrations: messagesMigrations,
  build: (database) => ({ ...mqttMethods(database) })
}
