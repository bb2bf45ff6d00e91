"""Renders a clip through the Stylus daemon on this machine, and prints the stem's path.

pip install python-osc
python stylus_render.py CONTENT STYLE [PORT]
"""

import sys
from uuid import uuid4

from pythonosc.udp_client import SimpleUDPClient

if len(sys.argv) < 3:
    sys.exit(__doc__)
content, style, port = [*sys.argv[1:], "9109"][:3]
with SimpleUDPClient("127.0.0.1", int(port)) as client:
    # Options follow the style, each as a key and a value: "keep", 0.7
    client.send_message("/stylus/render", [str(uuid4()), content, style])
    reply = next(client.get_messages(timeout=5), None)
    if reply is None:
        sys.exit(f"no daemon answers on port {port}")
    if reply.address == "/stylus/error":
        sys.exit(": ".join(reply.params[2:]))
    for event in client.get_messages(timeout=600):
        job, *news = event.params
        if event.address == "/stylus/job/result":
            print(news[1])
            break
        if event.address == "/stylus/job/error" or news[0] == "cancelled":
            sys.exit(": ".join(news))
    else:
        sys.exit("no word from the daemon for ten minutes")
