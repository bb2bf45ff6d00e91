/** A loop that is played, stopped and sought in without a click. */

import { FADE_SECONDS, Ramp } from "./envelopes.js";

/** What would click waits until the sound has gone: 5 ms. */
export class Transport {
  #loop = null;
  #next = null;
  #gain = new Ramp(0);
  #isPlaying = false;
  #sought = null;

  /** @param {number} sampleRate Hz */
  constructor(sampleRate) {
    this.fade = Math.round(FADE_SECONDS * sampleRate);
  }

  /** The loop that was loaded last, or null. @returns {?import("./spectral.js").AuditionLoop} */
  get loop() {
    return this.#next ?? this.#loop;
  }

  /** Whether what was asked for is heard, or at least has begun to be. */
  get isSettled() {
    return this.#next === null && this.#sought === null;
  }

  /** Seconds from the loop's start. */
  get position() {
    return this.#sought ?? this.loop?.position ?? 0;
  }

  /** @param {import("./spectral.js").AuditionLoop} loop takes the place of the one there is, and begins at its start */
  load(loop) {
    this.#next = loop;
    this.#sought = null;
    this.#gain.to(0, this.fade);
  }

  play() {
    this.#isPlaying = true;
    if (this.isSettled && this.#loop) this.#gain.to(1, this.fade);
  }

  /** Fall silent, and stay at this position. */
  stop() {
    this.#isPlaying = false;
    this.#gain.to(0, this.fade);
  }

  /** Go on from so many seconds. */
  seek(seconds) {
    this.#sought = seconds;
    this.#gain.to(0, this.fade);
  }

  /** The next samples, as `AuditionLoop.process`; all outputs are filled. */
  process(outputs, frames) {
    const gain = this.#gain;
    for (let done = 0; done < frames; ) {
      if (gain.value === 0 && gain.left === 0) this.#settle();
      if (gain.value === 0 && gain.left === 0) {
        for (let output = 0; output < outputs.length; output++) outputs[output].fill(0, done, frames);
        return;
      }
      const isFading = gain.left > 0;
      const count = isFading ? Math.min(frames - done, gain.left) : frames - done;
      this.#loop.process(outputs, count, done);
      for (let n = done; isFading && n < done + count; n++) {
        const value = gain.next();
        for (let output = 0; output < outputs.length; output++) outputs[output][n] *= value;
      }
      done += count;
    }
  }

  /** Nothing is heard: do what has waited for that. */
  #settle() {
    if (this.#next) {
      this.#loop = this.#next;
      this.#next = null;
    }
    if (this.#sought !== null && this.#loop) {
      this.#loop.seek(this.#sought);
      this.#sought = null;
    }
    if (this.#isPlaying && this.#loop) this.#gain.to(1, this.fade);
  }
}
