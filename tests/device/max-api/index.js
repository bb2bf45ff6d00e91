// Stands in for Max's own module, under plain Node: what the script says to the patch goes to stdout as lines of JSON,
// what it posts to stderr, and each line of stdin, ["handler", value…], is a message to it. Found through NODE_PATH.

"use strict";

const readline = require("node:readline");

const handlers = new Map();

exports.addHandler = (name, handler) => handlers.set(name, handler);

exports.outlet = (...values) => {
  for (const value of values) {
    if (!["string", "number"].includes(typeof value)) throw new TypeError(`${typeof value} is no atom of Max's`);
  }
  console.log(JSON.stringify(values));
};

exports.post = (...words) => console.error(...words);

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const [name, ...values] = JSON.parse(line);
  handlers.get(name)(...values);
});
// Max ends the process when the patch goes.
lines.on("close", () => process.exit());
