/**
 * mqtt.js trusts its broker: it answers packets whose number is missing, keeps what comes with QoS 2 until it is released, and
 * goes on with what it has parsed after its client was closed. Each of these can raise an error where nobody could catch it,
 * so that whoever answers as the broker, or a broker that hangs up at the wrong moment, would end the program.
 *
 * @module
 */
import type { MqttClient, Packet } from "mqtt"

/** mqtt.js does nothing about what brokers do not send. */
const passedOver = { cmd: "pingreq" } as const

/** Why a packet is not one that a broker may send, or one that was asked for; null where it is. */
const flawOf = (packet: Packet): string | null => {
  switch (packet.cmd) {
    case "publish":
      if (packet.qos === 2) return "it sends with QoS 2, which was not asked for"
      // -1, where it is missing.
      return packet.qos === 1 && !((packet.messageId ?? 0) > 0) ? "it sends a message without a number" : null
    case "connack": {
      const { serverKeepAlive: seconds = 0 } = packet.properties ?? {}
      // A list, where it is there twice.
      return Number.isInteger(seconds) && seconds >= 0 ? null : "its keep alive is no number of seconds"
    }
    case "puback":
    case "suback":
    case "unsuback":
    case "pingresp":
    case "disconnect":
    case "auth":
      return null
    default:
      return `it sends ${packet.cmd.toUpperCase()}, which was not asked for`
  }
}

/**
 * Has a client handle what a broker may send, while its connection stands, and nothing else. The connection ends with the
 * first error, as MQTT wants it: mqtt.js would read on behind what is malformed. To be called before anything could come.
 */
export const guardPackets = (client: MqttClient): void => {
  client.on("error", () => void client.stream.destroy())
  client.on("packetreceive", (packet) => {
    const flaw = client.stream.destroyed ? null : flawOf(packet)
    if (flaw !== null) client.emit("error", new Error(flaw))
    if (client.stream.destroyed) Object.assign(packet, passedOver)
  })
}
