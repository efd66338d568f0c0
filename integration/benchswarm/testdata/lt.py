"""Fetches a torrent with libtorrent, four uploads at a time, then seeds it.

lt.py TORRENT SAVE_PATH LISTEN_HOST:PORT DONE_FILE TRACKER

Makes DONE_FILE when all is here. It must never find peers by any other way
than the tracker that it is given and peer exchange.
"""

import sys
import time

import libtorrent as lt


def main():
    torrent, save_path, listen, done, tracker = sys.argv[1:]
    session = lt.session({
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "unchoke_slots_limit": 4,
        "allow_multiple_connections_per_ip": True,
        "min_announce_interval": 2,
    })
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = save_path
    handle = session.add_torrent(params)
    handle.replace_trackers([{"url": tracker}])
    said = False
    while True:
        status = handle.status()
        if status.is_seeding and not said:
            open(done, "w").close()
            said = True
        time.sleep(0.05)


main()
