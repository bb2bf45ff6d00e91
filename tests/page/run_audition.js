// Plays a loop as a file of JSON tells, and writes what is heard.
//
// {"rate", "clip": path, "channels", "attack": path?, "styles": {name: {"gains": path, "shape"}}, "block",
//  "steps": [{"style", "dials", "seek", "play", "render": samples}], "isTransport", "out": path}
//
// Audio lies in files of float32 [channel, sample], gains in files of int16. Back come, as JSON, the seconds that all
// blocks took and that the longest one of a step took, per step.

import fs from "node:fs";
import { AuditionLoop } from "./spectral.js";
import { Transport } from "./transport.js";

const spec = JSON.parse(fs.readFileSync(process.argv.at(-1), "utf8"));

function read(path, Numbers) {
  const bytes = fs.readFileSync(path);
  return new Numbers(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

/** Rows of one array, each an array of its own. */
function rows(values, count) {
  const length = values.length / count;
  return Array.from({ length: count }, (_, row) => values.slice(row * length, (row + 1) * length));
}

const clip = rows(read(spec.clip, Float32Array), spec.channels);
const loop = new AuditionLoop(clip, spec.rate, spec.attack ? read(spec.attack, Float32Array) : null);
const styles = Object.fromEntries(
  Object.entries(spec.styles).map(([name, { gains, shape }]) => [name, { gains: read(gains, Int16Array), shape }]),
);

let sounding = loop;
if (spec.isTransport) {
  sounding = new Transport(spec.rate);
  sounding.load(loop);
}

const total = spec.steps.reduce((sum, step) => sum + (step.render ?? 0), 0);
const heard = clip.map(() => new Float32Array(total));
const block = clip.map(() => new Float32Array(spec.block));
const times = [];
let at = 0;
for (const { style, dials, seek, play, render = 0 } of spec.steps) {
  if (style !== undefined) loop.setStyle(style === null ? null : styles[style]);
  if (dials) loop.setDials(dials);
  if (seek !== undefined) sounding.seek(seek);
  if (play === true) sounding.play();
  if (play === false) sounding.stop();
  let [all, longest] = [0, 0];
  for (const end = at + render; at < end; ) {
    const count = Math.min(spec.block, end - at);
    const start = performance.now();
    sounding.process(block, count);
    const taken = (performance.now() - start) / 1000;
    all += taken;
    longest = Math.max(longest, taken);
    for (const [channel, samples] of block.entries()) heard[channel].set(samples.subarray(0, count), at);
    at += count;
  }
  times.push({ all, longest });
}
fs.writeFileSync(spec.out, Buffer.concat(heard.map((samples) => Buffer.from(samples.buffer))));
console.log(JSON.stringify(times));
