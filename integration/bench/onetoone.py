"""Seeds or fetches a torrent with libtorrent.

onetoone.py TORRENT SAVE_PATH LISTEN_HOST:PORT DONE_FILE [PEER_HOST:PORT]

Without a peer it has all and seeds until it is killed. With one it fetches from
that alone, makes DONE_FILE when all is here, and ends.
"""

import sys
import time

import libtorrent as lt

torrent, save_path, listen, done, *peer = sys.argv[1:]
session = lt.session({
    "listen_interfaces": listen,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "out_enc_policy": 2,
    "in_enc_policy": 2,
})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = save_path
if not peer:
    params.flags |= lt.torrent_flags.seed_mode
handle = session.add_torrent(params)
for p in peer:
    host, port = p.rsplit(":", 1)
    handle.connect_peer((host, int(port)))
while not handle.status().is_seeding:
    time.sleep(0.005)
open(done, "w").close()
while not peer:
    time.sleep(1)
session.pause()
