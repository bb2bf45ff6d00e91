/**
 * The gains' bands and frames, and the bands that are kept.
 *
 * @typedef {object} Shape of gains, Int16 `[channel, frame, band]` in `UNIT` dB
 * @property {number} channels 1, which serves all channels of the audio, or as many as that has
 * @property {number} frames frame k is at `k · hop` of the loop
 * @property {number} bands their centres are evenly spaced in mel between `low` and `high`
 * @property {number} low Hz, the lower edge of the lowest band
 * @property {number} high Hz, the upper edge of the highest band
 * @property {number} hop seconds
 */

/** dB of one step of a gain. */
export const UNIT = 1 / 500;

/** How far a gain may go with the amount in it, dB; `gains.LIMIT_DB`. */
export const LIMIT = 60;

/** HTK's mel scale. */
function mel(hz) {
  return 2595 * Math.log10(1 + hz / 700);
}

/**
 * Where the bins of an STFT lie among the bands: bin k has `1 − share[k]` of band `low[k]` and `share[k]` of the one
 * above it. Outside, the nearest band holds.
 *
 * @param {Shape} shape
 * @param {number} size samples of the window
 * @returns {{low: Uint16Array, share: Float32Array}} both `[size / 2 + 1]`
 */
export function bandPlaces(shape, sampleRate, size) {
  const low = new Uint16Array(size / 2 + 1);
  const share = new Float32Array(size / 2 + 1);
  const [bottom, top] = [mel(shape.low), mel(shape.high)];
  for (let k = 0; k <= size / 2; k++) {
    const place = ((mel((k * sampleRate) / size) - bottom) / (top - bottom)) * (shape.bands + 1) - 1;
    const within = Math.min(Math.max(place, 0), shape.bands - 1);
    low[k] = Math.min(Math.floor(within), Math.max(0, shape.bands - 2));
    share[k] = within - low[k];
  }
  return { low, share };
}

/**
 * The frames of gains on a loop, of which those behind its end do not count.
 *
 * @param {Shape} shape
 * @param {number} samples of the loop
 * @returns {{frames: number, turn: number}} how many there are, and the loop's length in hops
 */
export function loopFrames(shape, samples, sampleRate) {
  const turn = samples / sampleRate / shape.hop;
  return { frames: Math.max(1, Math.min(shape.frames, Math.ceil(turn - 1e-6))), turn };
}

/**
 * How much of the change each bin takes: nothing under `keepBelow` and over `keepAbove`. The transitions are raised
 * cosines that lie wholly in the styled band.
 *
 * @param {Float32Array} shares where they are written, `[size / 2 + 1]`, in [0, 1]
 * @param {?number} keepBelow Hz
 * @param {?number} keepAbove Hz
 */
export function keepBands(shares, sampleRate, keepBelow, keepAbove) {
  const nyquist = sampleRate / 2;
  // Where bins are wide for the transition, a change that comes and goes spreads to the next one.
  const bin = nyquist / (shares.length - 1);
  for (let k = 0; k < shares.length; k++) {
    const hz = k * bin;
    shares[k] = 1;
    if (keepBelow) shares[k] *= rise(hz - bin, keepBelow, keepBelow * 1.5);
    if (keepAbove && keepAbove < nyquist) shares[k] *= 1 - rise(hz, keepAbove / 1.25, keepAbove);
  }
}

function rise(hz, from, to) {
  const place = Math.min(Math.max((hz - from) / (to - from), 0), 1);
  return 0.5 - 0.5 * Math.cos(Math.PI * place);
}
