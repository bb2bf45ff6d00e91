#!/bin/sh
# Renders a clip through the Stylus daemon on this machine, and prints the stem's path. With liblo's tools:
#
#     sudo apt install liblo-tools
#     ./stylus_render.sh CONTENT STYLE [PORT [REPLY_PORT]]
set -eu
[ $# -ge 2 ] || { echo "usage: $0 CONTENT STYLE [PORT [REPLY_PORT]]" >&2; exit 1; }
port=${3:-9109} reply_port=${4:-9111}
rid=$(date +%s)-$$
heard=$(mktemp)
oscdump -L "$reply_port" >"$heard" &
# Not TERM: oscdump asks for the next packet again after a signal, and may wait for it for ever.
trap 'kill -KILL $!; rm -f "$heard"' EXIT
trap 'exit 1' INT TERM

has() { grep -qE " /stylus/($1)" "$heard"; }

# A request under the same id is the same request: it is sent again until oscdump is there to hear the reply.
tries=0
until has 'reply|error'; do
  [ $((tries += 1)) -le 10 ] || { echo "no daemon answers on port $port" >&2; exit 1; }
  # Options follow the style, each as a key and a value; their types stand in the third word.
  oscsend "osc.udp://127.0.0.1:$port" /stylus/render ssssi "$rid" "$1" "$2" reply_port "$reply_port"
  sleep 0.5
done
until has 'error|job/result|job/error|job/state is [0-9]+ "cancelled"'; do sleep 0.5; done
has job/result || { tail -n 1 "$heard" >&2; exit 1; }
sed -n 's|.* /stylus/job/result iis [0-9]* 0 "\(.*\)"$|\1|p' "$heard"
