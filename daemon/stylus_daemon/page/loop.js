/** Samples that repeat. */

/** Exact zeros in all channels for so many seconds are digital silence, and stay it. */
const SILENT_SECONDS = 0.02;

/** Throws where they make no loop. */
export function checkChannels(channels) {
  const isLoop = [1, 2].includes(channels.length) && channels[0].length > 0;
  if (!isLoop || channels.at(-1).length !== channels[0].length) {
    throw new RangeError("a loop has one channel or two of the same length, of a sample at least");
  }
}

/** What is left of a value behind whole loops, below 0 too. */
export function modulo(value, length) {
  return value - Math.floor(value / length) * length;
}

/**
 * 0 in digital silence, 1 elsewhere, `[sample]`, so that a long window does not let the sound ring into it. The ramp
 * into silence takes 5 ms, the one out of it 1 ms, since there an attack begins; `finish.sounding`, round the loop.
 */
export function sounding(channels, sampleRate) {
  const samples = channels[0].length;
  const envelope = new Float32Array(samples).fill(1);
  const isSilent = (n) => channels.every((channel) => channel[n] === 0);
  let origin = 0;
  while (origin < samples && isSilent(origin)) origin += 1;
  if (origin === samples) return envelope.fill(0);
  const into = Math.round(0.005 * sampleRate);
  const outOf = Math.round(0.001 * sampleRate);
  // From a sample that sounds on, a run of silence ends before the loop does.
  for (let start = origin; start < origin + samples; start++) {
    let end = start;
    while (end < origin + samples && isSilent(end % samples)) end += 1;
    if (end - start >= SILENT_SECONDS * sampleRate) {
      for (let n = start; n < end; n++) envelope[n % samples] = 0;
      for (let n = 1; n <= into; n++) lower(envelope, start - n, n / into);
      for (let n = 0; n < outOf; n++) lower(envelope, end + n, n / outOf);
    }
    start = end;
  }
  return envelope;
}

function lower(envelope, n, value) {
  const place = modulo(n, envelope.length);
  envelope[place] = Math.min(envelope[place], value);
}
