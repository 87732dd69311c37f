/** MQTT 3.1.1 by the byte, for what no library sends. */

/** A CONNECT (MQTT 3.1.1, 3.1) with a clean session. */
export const connectOf = (name: string, password: string): Buffer => {
  const fields = ["MQTT", name, name, password].map((text) =>
    Buffer.from(`\0${String.fromCharCode(text.length)}${text}`)
  )
  const [protocol, ...payload] = fields as [Buffer, ...Array<Buffer>]
  const rest = Buffer.concat([protocol, Buffer.of(4, 0xc2, 0, 30), ...payload])
  return Buffer.concat([Buffer.of(0x10, rest.length), rest])
}

/** A PUBLISH of QoS 1 (MQTT 3.1.1, 3.3). */
export const publishOf = (topic: string, id: number): Buffer => {
  const rest = Buffer.concat([
    Buffer.of(0, topic.length),
    Buffer.from(topic),
    Buffer.of(id >> 8, id & 0xff),
    Buffer.from(String(id))
  ])
  return Buffer.concat([Buffer.of(0x32, rest.length), rest])
}
