/** Waveforms, drawn by wavesurfer from the peaks that the daemon has found: nothing is decoded here. */

import Regions from "./vendor/regions.js";
import WaveSurfer from "./vendor/wavesurfer.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A waveform of an overview in `place`; `plugins` are wavesurfer's. */
export function waveform(place, about, height = 56, plugins = []) {
  place.replaceChildren();
  return WaveSurfer.create({
    container: place, height, plugins, peaks: [about.peaks], duration: about.seconds, interact: false,
    waveColor: colour("--wave"), progressColor: colour("--wave"), cursorWidth: 0, hideScrollbar: true,
  });
}

/**
 * A waveform with a passage that can be dragged, and that a click elsewhere brings there; `moved` gets its start and
 * length in seconds, and whether it is to be drawn there.
 */
export function withLoop(place, about, start, length, moved) {
  const regions = Regions.create();
  const wave = waveform(place, about, 72, [regions]);
  const box = { wave, region: null };
  box.move = (from, long) => {
    box.region?.remove();
    box.region = regions.addRegion({
      start: from, end: Math.min(about.seconds, from + long), color: "rgba(194, 24, 91, 0.22)", drag: true, resize: true,
    });
    box.region.on("update-end", () => moved(box.region.start, box.region.end - box.region.start, false));
  };
  place.onclick = (event) => {
    const { left, width } = place.getBoundingClientRect();
    const at = ((event.clientX - left) / width) * about.seconds;
    const { start: from, end } = box.region;
    if (at < from || at > end) moved(at, end - from, true);
  };
  wave.on("ready", () => box.move(start, length));
  return box;
}
