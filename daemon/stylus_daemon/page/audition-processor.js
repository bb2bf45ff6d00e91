/**
 * The audition wall's sound in the audio thread.
 *
 * A message has any of these, and all that is in one takes effect at the same moment:
 *
 * - `clip`: `{channels: Float32Array[], sampleRate, attack: ?Float32Array, sounding: Float32Array}`, a loop in place of
 *   the one there is
 * - `style`: `{gains: Int16Array, shape}`, or null for the dry loop
 * - `dials`: any of `amount`, `mix`, `keepBelow`, `keepAbove`, `transients`, `level`
 * - `seek`: seconds
 * - `play`: true or false
 * - `id`: what it is answered with
 *
 * Back come `{position, time}`, in seconds, while it changes, and `{id, time}`: the context's time at the first quantum
 * that has what the message asked for.
 */

import { AuditionLoop } from "./spectral.js";
import { Transport } from "./transport.js";

const POSITIONS_PER_SECOND = 20;

/** Seconds of sound that nobody hears: an engine interprets the first ones, 20 times too slowly for a quantum. */
const WARMING_SECONDS = 1;

class AuditionProcessor extends AudioWorkletProcessor {
  #transport = new Transport(sampleRate);
  #unanswered = [];
  /** Reused, so that the audio thread has no garbage. */
  #report = { position: 0, time: 0 };
  #answer = { id: 0, time: 0 };
  #sinceReport = 0;

  constructor() {
    super();
    warmUp();
    this.port.onmessage = ({ data }) => this.#hear(data);
  }

  #hear({ clip, style, dials, seek, play, id }) {
    const transport = this.#transport;
    if (clip) transport.load(new AuditionLoop(clip.channels, clip.sampleRate, clip.attack, clip.sounding));
    if (style !== undefined) transport.loop?.setStyle(style);
    if (dials) transport.loop?.setDials(dials);
    if (seek !== undefined) transport.seek(seek);
    if (play === true) transport.play();
    if (play === false) transport.stop();
    if (id !== undefined) this.#unanswered.push(id);
  }

  process(inputs, outputs) {
    const output = outputs[0];
    this.#transport.process(output, output[0].length);
    if (this.#unanswered.length && this.#transport.isSettled) {
      for (let asked = 0; asked < this.#unanswered.length; asked++) {
        this.#answer.id = this.#unanswered[asked];
        this.#answer.time = currentTime;
        this.port.postMessage(this.#answer);
      }
      this.#unanswered.length = 0;
    }
    this.#sinceReport += output[0].length;
    if (this.#sinceReport >= sampleRate / POSITIONS_PER_SECOND) this.#tell();
    return true;
  }

  #tell() {
    this.#sinceReport -= sampleRate / POSITIONS_PER_SECOND;
    const position = this.#transport.position;
    if (position === this.#report.position) return;
    this.#report.position = position;
    this.#report.time = currentTime;
    this.port.postMessage(this.#report);
  }
}

/** Let the engine compile all that the audio thread will run. */
function warmUp() {
  const channels = [new Float32Array(8192).fill(0.1), new Float32Array(8192).fill(0.2)];
  const outputs = [new Float32Array(128), new Float32Array(128)];
  const loop = new AuditionLoop(channels, sampleRate);
  const transport = new Transport(sampleRate);
  transport.load(loop);
  transport.play();
  for (let quantum = 0; quantum * 128 < WARMING_SECONDS * sampleRate; quantum++) {
    if (quantum % 20 === 0) {
      const shape = { channels: 1 + ((quantum / 20) & 1), frames: 10, bands: 512, low: 20, high: 20000, hop: 0.01 };
      loop.setStyle({ gains: new Int16Array(shape.channels * 5120).fill(quantum), shape });
    }
    transport.process(outputs, 128);
  }
}

registerProcessor("stylus-audition", AuditionProcessor);
