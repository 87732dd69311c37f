/**
 * A broker that writes what it has taken to disk after it has acknowledged it (Mosquitto with `autosave_on_changes`) may
 * lose the last of it when it is killed. It does both before it looks at its connections again: whoever asks it something
 * after the acknowledgement, and has the answer, knows that what was acknowledged is on disk.
 *
 * @module
 */
import type { MqttClient } from "mqtt"

/** Gives a function that asks the broker, and calls back with its answer. Many who ask at once share one question. */
export const makeBarrier = (client: MqttClient): ((done: () => void) => void) => {
  let sent = 0
  let answered = 0
  let isDue = false
  let waiting: Array<{ readonly question: number; readonly done: () => void }> = []
  client.on("packetsend", ({ cmd }) => {
    if (cmd === "pingreq") sent++
  })
  client.on("packetreceive", ({ cmd }) => {
    if (cmd !== "pingresp") return
    answered++
    const over = waiting.filter(({ question }) => question <= answered)
    waiting = waiting.filter(({ question }) => question > answered)
    for (const { done } of over) done()
  })
  return (done) => {
    waiting.push({ question: sent + 1, done })
    if (isDue) return
    isDue = true
    setImmediate(() => {
      isDue = false
      if (client.connected && waiting.some(({ question }) => question > sent)) client.sendPing()
    })
  }
}
