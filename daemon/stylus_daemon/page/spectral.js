/**
 * The sound of the audition wall: a loop whose STFT is multiplied by a style's gains while it plays.
 *
 * As `finish.py` has it, all works on the difference between styled and dry sound, so that where nothing is to change
 * the output is the loop to the last bit: `loop + mix · (1 − transients · attack) · sounding · change`. The change is
 * the loop's windows times `kept · (level · gain − 1)` per bin. Nothing here knows of Web Audio.
 *
 * @typedef {object} Style
 * @property {Int16Array} gains `[channel, frame, band]`
 * @property {import("./bands.js").Shape} shape
 *
 * @typedef {object} Dials
 * @property {number} amount how many times as strong the gains are
 * @property {number} mix dry to wet, 0 to 1
 * @property {?number} keepBelow Hz, the band under it stays the loop's
 * @property {?number} keepAbove Hz, the band over it stays the loop's
 * @property {number} transients how much of the loop's attacks is kept, 0 to 1
 * @property {number} level factor of the styled sound, from `levelOf`
 */

import { bandPlaces, keepBands, LIMIT, loopFrames, UNIT } from "./bands.js";
import { FADE_SECONDS, Ramp } from "./envelopes.js";
import { Fft, hann, windowSize } from "./fft.js";
import { checkChannels, modulo, sounding } from "./loop.js";

export { Fft } from "./fft.js";
export { energiesOf, levelOf } from "./levels.js";

/** @type {Dials} */
export const DIALS = { amount: 1, mix: 1, keepBelow: null, keepAbove: null, transients: 0, level: 1 };

/** Windows that lie over one sample. */
const OVERLAP = 4;

/** What the squares of Hann windows a quarter of their length apart add up to. */
const WINDOW_SUM = 1.5;

/** Spectra that are held, a power of two: of windows over a moment, and those that begin within a hop and a fade. */
const HELD = 8;

/**
 * A loop that repeats without end. Windows lie on a grid of their own, which need not fit the loop's length: they read
 * the loop's samples round its end.
 */
export class AuditionLoop {
  #channels;
  #attack;
  #sounding;
  #fade;
  #fft;
  #analysis;
  #synthesis;
  #dials = { ...DIALS };
  #mix = new Ramp(DIALS.mix);
  #transients = new Ramp(DIALS.transients);
  #style = null;
  #places = null;
  #decibels = null;
  #frames = 0;
  #turn = 0;
  #kept;
  /** The next sample that is heard, and the next window; window w begins on sample w · hop. Samples count on and on. */
  #at = 0;
  #next = 0;
  #re = [];
  #im = [];
  #workRe;
  #workIm;
  #factors;
  /** The change as the dials are now, a ring; what it was before, from the sample where it changed on. */
  #change;
  #before;
  #fadeLeft = 0;
  #shares;
  /** Nothing has been heard from here yet, so there is nothing to fade from. */
  #fresh = true;
  #changed = false;

  /**
   * @param {Float32Array[]} channels one or two, `[sample]`
   * @param {number} sampleRate Hz
   * @param {?Float32Array} attack 1 at the loop's attacks, 0 away from them, `[sample]`
   * @param {Float32Array} heard the loop's `sounding`, which takes some milliseconds
   */
  constructor(channels, sampleRate, attack = null, heard = sounding(channels, sampleRate)) {
    checkChannels(channels);
    this.sampleRate = sampleRate;
    this.samples = channels[0].length;
    this.window = windowSize(sampleRate);
    this.hop = this.window / OVERLAP;
    this.#channels = channels;
    this.#attack = attack ?? new Float32Array(this.samples);
    this.#sounding = heard;
    this.#fade = Math.round(FADE_SECONDS * sampleRate);
    this.#fft = new Fft(this.window);
    this.#analysis = hann(this.window);
    this.#synthesis = this.#analysis.map((value) => value / WINDOW_SUM);
    const bins = this.window / 2 + 1;
    this.#kept = new Float32Array(bins).fill(1);
    this.#factors = channels.map(() => new Float64Array(bins));
    for (let held = 0; held < HELD; held++) {
      this.#re.push(new Float64Array(this.window));
      this.#im.push(new Float64Array(this.window));
    }
    this.#workRe = new Float64Array(this.window);
    this.#workIm = new Float64Array(this.window);
    this.#change = channels.map(() => new Float64Array(2 * this.window));
    this.#before = channels.map(() => new Float64Array(this.#fade));
    this.#shares = new Float64Array(this.hop);
    this.seek(0);
  }

  /** Seconds from the loop's start to the next sample that is heard. */
  get position() {
    return modulo(this.#at, this.samples) / this.sampleRate;
  }

  /** Go on from so many seconds, at once. */
  seek(seconds) {
    this.#at = modulo(Math.round(seconds * this.sampleRate), this.samples);
    this.#next = this.#first();
    this.#fadeLeft = 0;
    this.#fresh = true;
    this.#changed = false;
    this.#mix.set(this.#dials.mix);
    this.#transients.set(this.#dials.transients);
  }

  /** Take the gains of a style, or none. @param {?Style} style */
  setStyle(style) {
    if (style) {
      const { channels, frames, bands } = style.shape;
      if (style.gains.length !== channels * frames * bands) throw new RangeError("the gains have another shape");
      this.#places = bandPlaces(style.shape, this.sampleRate, this.window);
      ({ frames: this.#frames, turn: this.#turn } = loopFrames(style.shape, this.samples, this.sampleRate));
      if (this.#decibels?.length !== bands) this.#decibels = new Float64Array(bands);
    }
    this.#style = style;
    this.#changed = true;
  }

  /** @param {Partial<Dials>} dials */
  setDials(dials) {
    const now = this.#dials;
    const { amount, level, keepBelow, keepAbove } = now;
    Object.assign(now, dials);
    const isFiltered = now.keepBelow !== keepBelow || now.keepAbove !== keepAbove;
    if (isFiltered) keepBands(this.#kept, this.sampleRate, now.keepBelow, now.keepAbove);
    if (isFiltered || now.amount !== amount || now.level !== level) this.#changed = true;
    const steps = this.#fresh ? 0 : this.#fade;
    for (const [ramp, value] of [[this.#mix, now.mix], [this.#transients, now.transients]]) {
      if (steps) ramp.to(value, steps);
      else ramp.set(value);
    }
  }

  /**
   * The next samples, into `outputs` from `from` on. More outputs than the loop has channels hear its last one too.
   *
   * @param {Float32Array[]} outputs
   * @param {number} frames samples per output
   */
  process(outputs, frames, from = 0) {
    if (this.#changed) this.#renew();
    for (let done = 0; done < frames; ) {
      const count = Math.min(frames - done, this.hop);
      // So far ahead that what is heard now can be faded from without another window.
      while (this.#next * this.hop < this.#at + count + this.#fade) {
        this.#analyse(this.#next);
        this.#synthesise(this.#next);
        this.#next += 1;
      }
      this.#write(outputs, from + done, count);
      this.#at += count;
      this.#fadeLeft = Math.max(0, this.#fadeLeft - count);
      done += count;
    }
    this.#fresh = false;
  }

  /** The earliest window over the next sample. */
  #first() {
    return Math.floor(this.#at / this.hop) - OVERLAP + 1;
  }

  /** Make what is in flight again as it is to be now, and begin to fade from what it was. */
  #renew() {
    this.#changed = false;
    if (!this.#fresh) {
      for (let channel = 0; channel < this.#channels.length; channel++) this.#remember(channel);
      this.#fadeLeft = this.#fade;
    }
    for (let window = this.#first(); window < this.#next; window++) this.#synthesise(window);
  }

  /** Let `before` be what would be heard from here on, in the middle of another fade too. */
  #remember(channel) {
    const before = this.#before[channel];
    const change = this.#change[channel];
    const past = this.#fade - this.#fadeLeft;
    for (let n = 0; n < this.#fade; n++) {
      const now = change[(this.#at + n) & (change.length - 1)];
      before[n] = n < this.#fadeLeft ? faded(before[past + n], now, (past + n + 1) / this.#fade) : now;
    }
  }

  /** A window's spectrum, of both channels at once. */
  #analyse(window) {
    const re = this.#re[window & (HELD - 1)];
    const im = this.#im[window & (HELD - 1)];
    const left = this.#channels[0];
    const right = this.#channels[1];
    const analysis = this.#analysis;
    const samples = this.samples;
    let place = modulo(window * this.hop, samples);
    for (let n = 0; n < re.length; n++) {
      re[n] = left[place] * analysis[n];
      im[n] = right ? right[place] * analysis[n] : 0;
      place += 1;
      if (place === samples) place = 0;
    }
    this.#fft.forward(re, im);
  }

  /** Add what a window changes; windows come in order, and the first of them over the next sample begins anew. */
  #synthesise(window) {
    const re = this.#workRe;
    const im = this.#workIm;
    if (this.#style) {
      this.#multiply(window);
      this.#fft.inverse(re, im);
    } else {
      re.fill(0);
      im.fill(0);
    }
    const start = window * this.hop;
    const added = window === this.#first() ? 0 : this.window - this.hop;
    const synthesis = this.#synthesis;
    for (let channel = 0; channel < this.#channels.length; channel++) {
      const made = channel ? im : re;
      const change = this.#change[channel];
      const mask = change.length - 1;
      for (let n = 0; n < added; n++) change[(start + n) & mask] += made[n] * synthesis[n];
      for (let n = added; n < made.length; n++) change[(start + n) & mask] = made[n] * synthesis[n];
    }
  }

  /** The window's spectrum, that of `left + i·right`, times the factors that each channel has for itself. */
  #multiply(window) {
    const re = this.#re[window & (HELD - 1)];
    const im = this.#im[window & (HELD - 1)];
    const workRe = this.#workRe;
    const workIm = this.#workIm;
    const mask = re.length - 1;
    const isLinked = this.#style.shape.channels === 1 || this.#channels.length === 1;
    this.#measure(window, 0);
    if (!isLinked) this.#measure(window, 1);
    const left = this.#factors[0];
    const right = this.#factors[isLinked ? 0 : 1];
    for (let k = 0; k < left.length; k++) {
      const mirrored = -k & mask;
      // Half their sum applies to both channels, half their difference to left and minus right, which is the mirrored.
      const both = (left[k] + right[k]) / 2;
      const apart = (left[k] - right[k]) / 2;
      workRe[k] = both * re[k] + apart * re[mirrored];
      workIm[k] = both * im[k] - apart * im[mirrored];
      workRe[mirrored] = both * re[mirrored] + apart * re[k];
      workIm[mirrored] = both * im[mirrored] - apart * im[k];
    }
  }

  /** The factors of a window's difference, `kept · (level · gain − 1)` per bin. */
  #measure(window, channel) {
    const { gains, shape } = this.#style;
    const centre = modulo(window * this.hop + this.window / 2, this.samples) / this.sampleRate / shape.hop;
    const last = this.#frames - 1;
    // Behind the last frame the first one comes, at the loop's end.
    const ending = Math.min(1, this.#turn - last);
    const frame = Math.min(Math.floor(centre), last);
    const share = frame < last ? centre - frame : Math.max(0, (centre - this.#turn + ending) / ending);
    const bands = shape.bands;
    const row = Math.min(channel, shape.channels - 1) * shape.frames;
    const one = (row + frame) * bands;
    const other = (row + (frame < last ? frame + 1 : 0)) * bands;
    const decibels = this.#decibels;
    const scale = this.#dials.amount * UNIT;
    for (let band = 0; band < bands; band++) {
      decibels[band] = faded(limited(gains[one + band] * scale), limited(gains[other + band] * scale), share);
    }
    const factors = this.#factors[channel];
    const kept = this.#kept;
    const level = this.#dials.level;
    const low = this.#places.low;
    const above = this.#places.share;
    for (let k = 0; k < factors.length; k++) {
      const band = low[k];
      const db = above[k] > 0 ? faded(decibels[band], decibels[band + 1], above[k]) : decibels[band];
      factors[k] = kept[k] * (level * Math.exp(db * (Math.LN10 / 20)) - 1);
    }
  }

  #write(outputs, from, count) {
    const shares = this.#shares;
    const start = modulo(this.#at, this.samples);
    for (let n = 0, place = start; n < count; n++) {
      shares[n] = this.#mix.next() * (1 - this.#transients.next() * this.#attack[place]) * this.#sounding[place];
      place += 1;
      if (place === this.samples) place = 0;
    }
    const past = this.#fade - this.#fadeLeft;
    for (let output = 0; output < outputs.length; output++) {
      const channel = Math.min(output, this.#channels.length - 1);
      const dry = this.#channels[channel];
      const change = this.#change[channel];
      const before = this.#before[channel];
      for (let n = 0, place = start; n < count; n++) {
        let value = change[(this.#at + n) & (change.length - 1)];
        if (n < this.#fadeLeft) value = faded(before[past + n], value, (past + n + 1) / this.#fade);
        value *= shares[n];
        // Not even the sign of a zero is touched where nothing changes.
        outputs[output][from + n] = value === 0 ? dry[place] : dry[place] + value;
        place += 1;
        if (place === this.samples) place = 0;
      }
    }
  }
}

/** From one value to another; exactly the other where `share` is 1. */
function faded(one, other, share) {
  return one * (1 - share) + other * share;
}

function limited(db) {
  return Math.min(Math.max(db, -LIMIT), LIMIT);
}
