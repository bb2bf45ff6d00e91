/** The fast Fourier transform and the window of the STFT. */

/** Of complex numbers, in place, its size a power of two; nothing is allocated once it is made. */
export class Fft {
  #cos;
  #sin;
  #swaps;

  /** @param {number} size numbers that are transformed at once: 4, 8, 16, … */
  constructor(size) {
    const bits = Math.log2(size);
    if (!(bits >= 2) || !Number.isInteger(bits)) throw new RangeError(`an FFT of ${size} is not made here`);
    this.size = size;
    this.#cos = new Float64Array(size);
    this.#sin = new Float64Array(size);
    const reversed = new Uint32Array(size);
    for (let k = 0; k < size; k++) {
      this.#cos[k] = Math.cos((2 * Math.PI * k) / size);
      this.#sin[k] = -Math.sin((2 * Math.PI * k) / size);
      reversed[k] = (reversed[k >> 1] >> 1) | (k & 1 ? size >> 1 : 0);
    }
    const swaps = [];
    for (let k = 0; k < size; k++) if (k < reversed[k]) swaps.push(k, reversed[k]);
    this.#swaps = Uint32Array.from(swaps);
  }

  /**
   * Two real signals are transformed at once as `left + i·right`: their spectra are `(X + X*) / 2` and `(X − X*) / 2i`,
   * where `X*` is the conjugate of `X[size − k]`.
   *
   * @param {Float64Array} re `[size]`
   * @param {Float64Array} im `[size]`
   */
  forward(re, im) {
    const swaps = this.#swaps;
    for (let n = 0; n < swaps.length; n += 2) {
      const one = swaps[n];
      const other = swaps[n + 1];
      const x = re[one];
      const y = im[one];
      re[one] = re[other];
      im[one] = im[other];
      re[other] = x;
      im[other] = y;
    }
    let quarter = 1;
    if (Math.log2(this.size) % 2) {
      this.#pairs(re, im);
      quarter = 2;
    }
    for (; quarter < this.size; quarter *= 4) this.#fours(re, im, quarter);
  }

  /** The inverse of `forward`, in place. */
  inverse(re, im) {
    this.forward(im, re);
    const scale = 1 / this.size;
    for (let k = 0; k < re.length; k++) {
      re[k] *= scale;
      im[k] *= scale;
    }
  }

  /** Transforms of 1 to those of 2. */
  #pairs(re, im) {
    for (let k = 0; k < re.length; k += 2) {
      const x = re[k + 1];
      const y = im[k + 1];
      re[k + 1] = re[k] - x;
      im[k + 1] = im[k] - y;
      re[k] += x;
      im[k] += y;
    }
  }

  /** Transforms of `quarter` to those of four times as many: two steps of 2 in one, which reads all half as often. */
  #fours(re, im, quarter) {
    const cos = this.#cos;
    const sin = this.#sin;
    const size = re.length;
    const stride = size / (4 * quarter);
    for (let first = 0; first < size; first += 4 * quarter) {
      for (let n = 0; n < quarter; n++) {
        // Bits are reversed: the second part has the even ones of what the first has not.
        const a = first + n;
        const b = a + quarter;
        const c = b + quarter;
        const d = c + quarter;
        const turn = n * stride;
        const bRe = re[b] * cos[2 * turn] - im[b] * sin[2 * turn];
        const bIm = re[b] * sin[2 * turn] + im[b] * cos[2 * turn];
        const cRe = re[c] * cos[turn] - im[c] * sin[turn];
        const cIm = re[c] * sin[turn] + im[c] * cos[turn];
        const dRe = re[d] * cos[3 * turn] - im[d] * sin[3 * turn];
        const dIm = re[d] * sin[3 * turn] + im[d] * cos[3 * turn];
        const evenRe = re[a] + bRe;
        const evenIm = im[a] + bIm;
        const oddRe = re[a] - bRe;
        const oddIm = im[a] - bIm;
        const sumRe = cRe + dRe;
        const sumIm = cIm + dIm;
        // A quarter of a turn: times −i.
        const turnedRe = cIm - dIm;
        const turnedIm = dRe - cRe;
        re[a] = evenRe + sumRe;
        im[a] = evenIm + sumIm;
        re[b] = oddRe + turnedRe;
        im[b] = oddIm + turnedIm;
        re[c] = evenRe - sumRe;
        im[c] = evenIm - sumIm;
        re[d] = oddRe - turnedRe;
        im[d] = oddIm - turnedIm;
      }
    }
  }
}

/** Samples of the window: the power of two nearest to 93 ms, which is the embedded model's at 44.1 kHz. */
export function windowSize(sampleRate) {
  return 2 ** Math.round(Math.log2((4096 / 44100) * sampleRate));
}

/** A periodic Hann window, `[size]`. */
export function hann(size) {
  return new Float64Array(size).map((_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / size));
}
