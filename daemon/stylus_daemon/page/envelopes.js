/** What keeps a change of the sound from clicking. */

/** Seconds from one sound to the next, wherever a step would click. */
export const FADE_SECONDS = 0.005;

/** A value that goes to another in a straight line. */
export class Ramp {
  #target;

  constructor(value) {
    this.set(value);
  }

  /** Be a value at once. */
  set(value) {
    this.value = value;
    this.#target = value;
    /** Steps that are left until the value is reached. */
    this.left = 0;
  }

  /** Reach a value after so many calls of `next`. */
  to(value, steps) {
    if (value === this.#target) return;
    this.#target = value;
    this.left = steps;
  }

  next() {
    if (this.left > 0) {
      this.value += (this.#target - this.value) / this.left;
      this.left -= 1;
      if (this.left === 0) this.value = this.#target;
    }
    return this.value;
  }
}
