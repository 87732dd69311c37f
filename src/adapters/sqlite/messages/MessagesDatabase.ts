/**
 * The messages database as a database class: sessions of the embedded broker, what stands beside a Mosquitto, and what
 * broker services keep.
 */
import type { DatabaseDefinition } from "../Database.ts"
import { messagesMigrations } from "./MessagesSchema.ts"
import { type MosquittoMethods, mosquittoMethods } from "./MosquittoRows.ts"
import { type MqttMethods, mqttMethods } from "./MqttRows.ts"
import { type RelayMethods, relayMethods } from "./RelayRows.ts"

export const messagesDatabase: DatabaseDefinition<MqttMethods & RelayMethods & MosquittoMethods> = {
  name: "messages",
  migrations: messagesMigrations,
  build: (database) => ({
    ...mqttMethods(database),
    ...relayMethods(database),
    ...mosquittoMethods(database)
  })
}
