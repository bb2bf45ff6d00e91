// Renders a clip through the Stylus daemon on this machine, and prints the stem's path.
//
//     npm install node-osc
//     node stylus_render.js CONTENT STYLE [PORT]

const { randomUUID } = require("node:crypto");
const { Server } = require("node-osc");

const HOST = "127.0.0.1";
const [content, style, port = "9109"] = process.argv.slice(2);
if (!style) end("usage: node stylus_render.js CONTENT STYLE [PORT]");

// One socket for both ways: the daemon answers to where a request came from.
const socket = new Server(0, HOST, () => {
  // Options follow the style, each as a key and a value: "keep", 0.7
  socket.send(["/stylus/render", randomUUID(), content, style], Number(port), HOST);
});
const silence = setTimeout(end, 5000, `no daemon answers on port ${port}`);

socket.on("/stylus/reply", () => clearTimeout(silence));
socket.on("/stylus/error", ([, , , code, message]) => end(`${code}: ${message}`));
socket.on("/stylus/job/progress", ([, , fraction, stage]) => console.error(`${Math.round(100 * fraction)} % ${stage}`));
socket.on("/stylus/job/error", ([, , code, message]) => end(`${code}: ${message}`));
socket.on("/stylus/job/state", ([, , state]) => state === "cancelled" && end(state));
socket.on("/stylus/job/result", ([, , , path]) => {
  console.log(path);
  process.exit();
});

function end(why) {
  console.error(why);
  process.exit(1);
}
