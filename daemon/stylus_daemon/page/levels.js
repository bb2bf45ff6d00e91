/**
 * How loud gains make a clip, without making the sound: ITU-R BS.1770 on its power per band and frame.
 *
 * @typedef {object} Energies
 * @property {import("./bands.js").Shape} shape of the gains that they are for, linked or not
 * @property {number} frames of the gains that count
 * @property {number} channels of the audio
 * @property {Float32Array} values K-weighted power `[channel, frame, band]`
 */

import { bandPlaces, LIMIT, loopFrames, UNIT } from "./bands.js";
import { Fft, hann, windowSize } from "./fft.js";
import { modulo } from "./loop.js";

const LEVEL_LIMIT = 40;
const BLOCK_SECONDS = 0.4;
const STEP_SECONDS = 0.1;
const OFFSET = -0.691;
const ABSOLUTE_GATE = 10 ** ((-70 - OFFSET) / 10);
const RELATIVE_GATE = 0.1;

/** Gains are looked up in steps of so many units: 0.016 dB. */
const STEP_BITS = 3;

/**
 * The loop's power where gains are. Takes some tens of milliseconds.
 *
 * @param {Float32Array[]} channels one or two, `[sample]`
 * @param {number} sampleRate Hz
 * @param {import("./bands.js").Shape} shape of the gains
 * @returns {Energies}
 */
export function energiesOf(channels, sampleRate, shape) {
  const size = windowSize(sampleRate);
  const { frames } = loopFrames(shape, channels[0].length, sampleRate);
  const { low, share } = bandPlaces(shape, sampleRate, size);
  const weights = kWeights(sampleRate, size);
  const fft = new Fft(size);
  const window = hann(size);
  const spectrum = { re: new Float64Array(size), im: new Float64Array(size) };
  const values = new Float32Array(channels.length * frames * shape.bands);
  const powers = new Float64Array(size / 2);
  // Both halves of the spectrum; a Hann window has 3/8 of the power of none.
  const scale = 2 / (size * size * 0.375);
  for (let frame = 0; frame < frames; frame++) {
    const at = Math.round(frame * shape.hop * sampleRate) - size / 2;
    cut(channels, at, window, spectrum);
    fft.forward(spectrum.re, spectrum.im);
    for (let channel = 0; channel < channels.length; channel++) {
      measure(spectrum, channel, powers);
      const first = (channel * frames + frame) * shape.bands;
      const row = values.subarray(first, first + shape.bands);
      for (let k = 1; k < powers.length; k++) {
        const power = powers[k] * weights[k] * scale;
        row[low[k]] += (1 - share[k]) * power;
        // One band alone has no place for the rest, which is nothing.
        row[low[k] + 1] += share[k] * power;
      }
    }
  }
  return { shape, frames, channels: channels.length, values };
}

/** A window of the loop from sample `at` on, `left + i·right`. */
function cut(channels, at, window, { re, im }) {
  const left = channels[0];
  const right = channels[1] ?? channels[0];
  let place = modulo(at, left.length);
  for (let n = 0; n < window.length; n++) {
    re[n] = left[place] * window[n];
    im[n] = right[place] * window[n];
    place += 1;
    if (place === left.length) place = 0;
  }
}

/** The power of one of the two channels per bin. */
function measure({ re, im }, channel, powers) {
  const sign = channel ? -1 : 1;
  for (let k = 1; k < powers.length; k++) {
    const x = re[k] + sign * re[re.length - k];
    const y = im[k] - sign * im[re.length - k];
    powers[k] = (x * x + y * y) / 4;
  }
}

/**
 * The factor that gives what the gains make the content's loudness, as `finish.level_factor`: a value within ±40 dB,
 * and 1 where either is silence. Takes a few milliseconds.
 *
 * @param {Energies} energies
 * @param {Int16Array} gains of the energies' shape, linked or not
 * @param {number} amount how many times as strong the gains are
 */
export function levelOf(energies, gains, amount) {
  const { shape, frames, channels, values } = energies;
  const rows = gains.length / shape.frames / shape.bands;
  const middle = 2 ** (15 - STEP_BITS);
  const factors = new Float64Array(2 * middle + 1);
  for (let step = 0; step < factors.length; step++) {
    const db = amount * ((step - middle) * 2 ** STEP_BITS * UNIT);
    factors[step] = 10 ** (Math.min(Math.max(db, -LIMIT), LIMIT) / 10);
  }
  const [dry, wet] = [new Float64Array(frames), new Float64Array(frames)];
  for (let channel = 0; channel < channels; channel++) {
    for (let frame = 0; frame < frames; frame++) {
      const first = (channel * frames + frame) * shape.bands;
      const gain = (Math.min(channel, rows - 1) * shape.frames + frame) * shape.bands;
      const powers = values.subarray(first, first + shape.bands);
      dry[frame] += sum(powers);
      wet[frame] += sumWith(powers, gains.subarray(gain, gain + shape.bands), factors);
    }
  }
  const [measured, wanted] = [wet, dry].map((powers) => gatedPower(powers, shape.hop));
  if (!(measured > 0 && wanted > 0)) return 1;
  const db = 10 * Math.log10(wanted / measured);
  return 10 ** (Math.min(Math.max(db, -LEVEL_LIMIT), LEVEL_LIMIT) / 20);
}

/** The mean power that integrated loudness is of, without the blocks under both gates; powers are `hop` s apart. */
function gatedPower(powers, hop) {
  const [length, step] = [Math.round(BLOCK_SECONDS / hop), Math.round(STEP_SECONDS / hop)];
  const blocks = [];
  // Silence follows a clip that is shorter than a block.
  for (let first = 0; first === 0 || first + length <= powers.length; first += step) {
    blocks.push(sum(powers.subarray(first, first + length)) / length);
  }
  const loud = blocks.filter((power) => power > ABSOLUTE_GATE);
  const gate = (sum(loud) / loud.length) * RELATIVE_GATE;
  const louder = loud.filter((power) => power > gate);
  return louder.length ? sum(louder) / louder.length : 0;
}

function sum(values) {
  let total = 0;
  for (let n = 0; n < values.length; n++) total += values[n];
  return total;
}

/** The sum of powers times their gains' factors. */
function sumWith(powers, gains, factors) {
  const [rounding, middle] = [2 ** (STEP_BITS - 1), factors.length >> 1];
  let total = 0;
  for (let n = 0; n < powers.length; n++) total += powers[n] * factors[((gains[n] + rounding) >> STEP_BITS) + middle];
  return total;
}

/** Power of the K-weighting at the bins of an STFT, `[size / 2 + 1]`; `loudness.k_weighting` at the same rate. */
function kWeights(sampleRate, size) {
  const high = 10 ** (3.999843853973347 / 20);
  const middle = high ** 0.4996667741545416;
  const q = 0.7071752369554196;
  const k = Math.tan((Math.PI * 1681.974450955533) / sampleRate);
  const lower = 38.13547087602444;
  const lowerQ = 0.5003270373238773;
  const j = Math.tan((Math.PI * lower) / sampleRate);
  // The numerator that the standard lists is right at 48 kHz only.
  const at48k = Math.tan((Math.PI * lower) / 48000);
  const gain = 1 + at48k / lowerQ + at48k * at48k;
  const shelf = [
    [high + (middle * k) / q + k * k, 2 * (k * k - high), high - (middle * k) / q + k * k],
    [1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k],
  ];
  const highPass = [
    [gain, -2 * gain, gain],
    [1 + j / lowerQ + j * j, 2 * (j * j - 1), 1 - j / lowerQ + j * j],
  ];
  return Float64Array.from({ length: size / 2 + 1 }, (_, bin) => {
    const angle = (2 * Math.PI * bin) / size;
    const [lifted, passed] = [shelf, highPass].map(([over, under]) => response(over, angle) / response(under, angle));
    return lifted * passed;
  });
}

/** Power of `a + b·z⁻¹ + c·z⁻²` at an angle. */
function response([a, b, c], angle) {
  const re = a + b * Math.cos(angle) + c * Math.cos(2 * angle);
  const im = b * Math.sin(angle) + c * Math.sin(2 * angle);
  return re * re + im * im;
}
