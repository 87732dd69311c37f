/**
 * The last wills of the embedded broker's connections: kept on disk while those stand, and said where the broker itself
 * ended before them.
 */
import type { Client, PublishPacket } from "aedes"
import { errorText } from "../files/AtomicFile.ts"
import type { WillRow } from "../sqlite/messages/MqttRows.ts"

export interface LastWillsOptions {
  /** Over what stands under the same name. */
  readonly put: (row: WillRow) => Promise<void>
  /** Removes a name's. */
  readonly take: (name: string) => Promise<unknown>
  readonly all: () => Promise<ReadonlyArray<WillRow>>
  /** Hands one on that an earlier life of the broker left. */
  readonly say: (will: PublishPacket) => Promise<void>
  /** Told what failed where nobody waits for it. */
  readonly onTrouble: (what: string) => void
}

/** So many are handed on at once. */
const saidTogether = 16

const toPacket = ({ broker, client, payload, qos, retain, topic }: WillRow): PublishPacket =>
  ({
    cmd: "publish",
    brokerId: broker,
    clientId: client,
    topic,
    qos: Math.min(qos, 1),
    retain,
    payload: Buffer.from(payload)
  }) as unknown as PublishPacket

export class LastWills {
  private readonly options: LastWillsOptions
  /** Whose each name's is. */
  private readonly owners = new Map<string, Client>()

  constructor(options: LastWillsOptions) {
    this.options = options
  }

  async put(client: Client, row: WillRow): Promise<void> {
    this.owners.set(client.id, client)
    await this.options.put(row)
  }

  /**
   * Removes what a connection left, or one before it under its name. aedes tells of those that end by the name alone, and that
   * may have a new connection by then, whose will stays.
   *
   * Never fails: aedes gives the failure to nobody, which would end the whole program. What stays is overwritten by the
   * name's next will, or said by the broker's next life.
   */
  async remove(name: string): Promise<void> {
    if (this.owners.get(name)?.closed === false) return
    this.owners.delete(name)
    await this.options.take(name).catch((error) => {
      this.options.onTrouble(`the last will of ${name} was not taken back: ${errorText(error)}`)
    })
  }

  /** Says what lives of the broker other than this one left. What fails stays until the next time. */
  async sayLeft(broker: string): Promise<void> {
    const failed: Array<string> = []
    const say = async (will: WillRow): Promise<void> => {
      await this.options.say(toPacket(will))
      await this.remove(will.client)
    }
    const note = (error: unknown): void => void failed.push(errorText(error))
    const wills = await this.options.all().catch((error) => {
      note(error)
      return []
    })
    const left = wills.filter((will) => will.broker !== broker)
    for (let at = 0; at < left.length; at += saidTogether)
      await Promise.all(left.slice(at, at + saidTogether).map((will) => say(will).catch(note)))
    if (failed.length > 0)
      this.options.onTrouble(
        `last wills of an earlier life of the broker wait, since ${failed.length} of the attempts failed: ${failed[0]}`
      )
  }
}
