/**
 * Several sounds of one passage, played in sync: one is heard, at the loudness of the softest, and another takes its
 * place at the same moment of it. Long files come piece by piece, so that ten minutes take no more memory than ten
 * seconds.
 */

import { sound } from "./api.js";

const PIECE = 4;
const AHEAD = 8;
const FADE = 0.012;

export class Comparison {
  /**
   * `tracks` are `{key, path, rate, samples, offset, lufs, loops}`: `offset` is where the passage begins in the file, in
   * seconds; a style `loops`, as it is as long as it likes. `seconds` is the passage's length.
   */
  constructor(tracks, seconds) {
    this.tracks = tracks.map((track) => ({ ...track, pieces: new Map(), sources: new Set() }));
    this.seconds = seconds;
    this.heard = tracks[0].key;
    this.position = 0;
    this.playing = false;
    /** Whether it is to play: true already while the first pieces are on their way. */
    this.wanted = false;
    this.onPosition = () => {};
    this.onEnd = () => {};
    /** What ended the playing, such as a file that is gone. */
    this.onError = () => {};
    this.turn = 0;
    const loudness = tracks.map((track) => track.lufs).filter((lufs) => lufs !== null);
    this.level = Math.min(...loudness, 0);
  }

  open() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: this.tracks[0].rate });
    for (const track of this.tracks) {
      track.gain = new GainNode(this.context, { gain: track.key === this.heard ? this.factor(track) : 0 });
      track.gain.connect(this.context.destination);
    }
  }

  /** What brings a track to the loudness of the softest. */
  factor(track) {
    return track.lufs === null ? 1 : Math.min(1, 10 ** ((this.level - track.lufs) / 20));
  }

  choose(key) {
    this.heard = key;
    if (!this.context) return;
    for (const track of this.tracks) {
      const gain = track.gain.gain;
      gain.cancelScheduledValues(this.context.currentTime);
      gain.setTargetAtTime(track.key === key ? this.factor(track) : 0, this.context.currentTime, FADE / 3);
    }
  }

  now() {
    if (!this.playing) return this.position;
    return Math.min(this.seconds, Math.max(this.started, this.started + this.context.currentTime - this.at));
  }

  async play() {
    this.open();
    this.wanted = true;
    if (this.position >= this.seconds - 0.02) this.position = 0;
    const turn = (this.turn += 1);
    this.started = this.position;
    // All of them are there before one is heard.
    try {
      await Promise.all([this.context.resume(), ...this.tracks.map((track) => this.piece(track, this.placeOf(track, this.position).number))]);
    } catch (error) {
      // Nobody waits any more for what was sought away from.
      if (turn !== this.turn) return;
      this.wanted = false;
      throw error;
    }
    if (turn !== this.turn) return;
    this.at = this.context.currentTime + 0.05;
    this.playing = true;
    for (const track of this.tracks) track.next = this.position;
    this.feed(turn).catch((error) => {
      if (turn !== this.turn) return;
      this.pause();
      this.onError(error);
    });
    this.watch(turn);
  }

  pause() {
    this.wanted = false;
    this.halt();
  }

  halt() {
    this.position = this.now();
    this.playing = false;
    this.turn += 1;
    for (const track of this.tracks) {
      for (const source of track.sources) source.stop();
      track.sources.clear();
    }
  }

  async seek(seconds) {
    this.halt();
    this.position = Math.min(this.seconds, Math.max(0, seconds));
    this.onPosition(this.position);
    if (this.wanted) await this.play();
  }

  async close() {
    this.pause();
    const { context } = this;
    // Whoever closes it meanwhile finds it closed.
    this.context = null;
    await context?.close();
  }

  /** Where a moment of the passage lies in a track's file, in seconds, and in which piece of it. */
  placeOf(track, seconds) {
    const inFile = track.loops ? (seconds + track.offset) % (track.samples / track.rate) : seconds + track.offset;
    return { inFile, number: Math.floor(inFile / PIECE + 1e-9) };
  }

  piece(track, number) {
    if (!track.pieces.has(number)) {
      const start = Math.round(number * PIECE * track.rate);
      const samples = Math.min(Math.round((number + 1) * PIECE * track.rate), track.samples) - start;
      const made = samples <= 0 ? Promise.resolve(null) : sound(track.path, start, samples).then(({ channels, rate }) => {
        const buffer = new AudioBuffer({ numberOfChannels: channels.length, length: channels[0].length, sampleRate: rate });
        channels.forEach((values, channel) => buffer.copyToChannel(values, channel));
        return buffer;
      });
      made.catch(() => track.pieces.delete(number));
      track.pieces.set(number, made);
      // What lies behind is asked for again where somebody goes back.
      if (track.pieces.size > 8) track.pieces.delete(track.pieces.keys().next().value);
    }
    return track.pieces.get(number);
  }

  async feed(turn) {
    while (turn === this.turn) {
      for (const track of this.tracks) {
        while (turn === this.turn && track.next < Math.min(this.seconds, this.now() + AHEAD)) await this.schedule(track, turn);
      }
      if (this.tracks.every((track) => track.next >= this.seconds)) return;
      await new Promise((done) => setTimeout(done, 250));
    }
  }

  async schedule(track, turn) {
    const total = track.samples / track.rate;
    const from = track.next;
    const { inFile, number } = this.placeOf(track, from);
    const end = Math.min((number + 1) * PIECE, total);
    const buffer = await this.piece(track, number);
    if (turn !== this.turn) return;
    const inPiece = inFile - number * PIECE;
    const long = Math.min(end - inFile, this.seconds - from);
    if (!buffer || long <= 1 / track.rate) {
      track.next = buffer && track.loops && from < this.seconds ? from + Math.max(long, 1 / track.rate) : this.seconds;
      return;
    }
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(track.gain);
    const when = this.at + from - this.started;
    // One that comes late is heard from where it should be by now.
    const late = Math.max(0, this.context.currentTime - when);
    if (late < long) {
      source.start(when + late, inPiece + late, long - late);
      track.sources.add(source);
      source.onended = () => track.sources.delete(source);
    }
    track.next = from + long;
  }

  watch(turn) {
    if (turn !== this.turn) return;
    const now = this.now();
    this.onPosition(now);
    if (now >= this.seconds) {
      this.pause();
      this.position = 0;
      this.onEnd();
      return;
    }
    requestAnimationFrame(() => this.watch(turn));
  }
}
