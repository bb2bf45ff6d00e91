/** The audition wall's sound for the page: a clip that loops, its styles and the dials. It knows nothing of the DOM. */

import { checkChannels, sounding } from "./loop.js";
import { DIALS, energiesOf, levelOf } from "./spectral.js";

/**
 * What changes the sound gives a promise of the context's time, in seconds, at which it is heard. It waits for as long
 * as the context does: before the user has touched the page, a browser lets nothing sound.
 */
export class Audition {
  /** Called some 20 times a second while it plays, with seconds from the loop's start and the context's time. */
  onPosition = (position, time) => {};
  /** @type {?AudioContext} */
  context = null;
  /** Connected to the context's destination. @type {?AudioWorkletNode} */
  node = null;
  #makeContext;
  #clip = null;
  #styles = new Map();
  #chosen = null;
  #dials = { ...DIALS };
  #energies = new Map();
  #waiting = new Map();
  #asked = 0;
  #isPlaying = false;
  #opening = Promise.resolve();

  /** @param {(sampleRate: number) => BaseAudioContext} makeContext for one that is not live */
  constructor(makeContext = (sampleRate) => new AudioContext({ sampleRate, latencyHint: "interactive" })) {
    this.#makeContext = makeContext;
  }

  /** The chosen style's name, or null. */
  get chosen() {
    return this.#chosen;
  }

  /** @returns {import("./spectral.js").Dials} the level is that of the chosen style */
  get dials() {
    return { ...this.#dials, level: this.#level(this.#styles.get(this.#chosen)) };
  }

  /**
   * Loop another clip, dry and from its start; the dials stay, the styles are forgotten, since their gains are a clip's
   * own.
   *
   * @param {Float32Array[]} channels one or two, `[sample]`
   * @param {number} sampleRate Hz
   * @param {?Float32Array} attack 1 at the clip's attacks, 0 away from them, `[sample]`
   * @returns {Promise<void>} is rejected where the browser has no context at this rate
   */
  setClip(channels, sampleRate, attack = null) {
    checkChannels(channels);
    this.#clip = { channels, sampleRate, attack, sounding: sounding(channels, sampleRate) };
    this.#styles.clear();
    this.#energies.clear();
    this.#chosen = null;
    // One after the other, so that of two clips the later one is heard.
    this.#opening = this.#opening.catch(() => {}).then(() => this.#open());
    return this.#opening;
  }

  async #open() {
    const { sampleRate } = this.#clip;
    if (!this.node || this.context.sampleRate !== sampleRate) {
      await this.close();
      const context = this.#makeContext(sampleRate);
      this.context = context;
      await context.audioWorklet.addModule(new URL("./audition-processor.js", import.meta.url));
      this.node = new AudioWorkletNode(context, "stylus-audition", { numberOfInputs: 0, outputChannelCount: [2] });
      this.node.port.onmessage = ({ data }) => this.#hear(data);
      this.node.connect(context.destination);
    }
    this.#send({ clip: this.#clip, ...this.#sound(), play: this.#isPlaying });
  }

  /**
   * Takes some milliseconds, the first style of a clip some tens.
   *
   * @param {string} name
   * @param {Int16Array} gains `[channel, frame, band]` in 1/500 dB
   * @param {import("./bands.js").Shape} shape
   */
  addStyle(name, gains, shape) {
    if (!this.#clip) throw new Error("gains are those of a clip, and there is none yet");
    const style = { gains, shape, levels: new Map() };
    this.#styles.set(name, style);
    // Now rather than when it is chosen, which is to be heard at once.
    this.#level(style);
    if (name === this.#chosen) this.choose(name);
  }

  /** Hear a style, or with null the dry clip, from this moment of the loop on. */
  choose(name) {
    if (name !== null && !this.#styles.has(name)) throw new RangeError(`no style is called ${name}`);
    this.#chosen = name;
    return this.#send(this.#sound());
  }

  /** Turn any of the dials; the level follows the amount by itself. @param {Partial<Dials>} dials */
  setDials(dials) {
    Object.assign(this.#dials, dials);
    return this.#send({ dials: this.dials });
  }

  play() {
    this.#isPlaying = true;
    // One that is not live has nothing to resume.
    this.context?.resume().catch(() => {});
    return this.#send({ play: true });
  }

  /** Fall silent; `play` goes on from there. */
  stop() {
    this.#isPlaying = false;
    return this.#send({ play: false });
  }

  /** Go on from so many seconds of the loop. */
  seek(seconds) {
    return this.#send({ seek: seconds });
  }

  /** Give the sound card back. */
  async close() {
    const { context } = this;
    this.node?.disconnect();
    this.node = null;
    this.context = null;
    for (const answer of this.#waiting.values()) answer(null);
    this.#waiting.clear();
    await context?.close?.();
  }

  #sound() {
    const style = this.#styles.get(this.#chosen);
    return { style: style ? { gains: style.gains, shape: style.shape } : null, dials: this.dials };
  }

  #level(style) {
    if (!style) return 1;
    const { amount } = this.#dials;
    if (!style.levels.has(amount)) style.levels.set(amount, levelOf(this.#energiesFor(style), style.gains, amount));
    return style.levels.get(amount);
  }

  /** Styles of one model have one shape, and share this. */
  #energiesFor({ shape }) {
    const key = JSON.stringify([shape.frames, shape.bands, shape.low, shape.high, shape.hop]);
    const { channels, sampleRate } = this.#clip;
    if (!this.#energies.has(key)) this.#energies.set(key, energiesOf(channels, sampleRate, shape));
    return this.#energies.get(key);
  }

  #hear({ id, position, time }) {
    if (position !== undefined) this.onPosition(position, time);
    this.#waiting.get(id)?.(time);
    this.#waiting.delete(id);
  }

  /** What is asked for before there is a node is part of what the node begins with. */
  #send(message) {
    if (!this.node) return Promise.resolve(null);
    const id = (this.#asked += 1);
    this.node.port.postMessage({ ...message, id });
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }
}
