"""Fetches a torrent with libtorrent, then seeds it until it is killed.

lt.py TORRENT SAVE_PATH LISTEN_HOST:PORT DONE_FILE [PEER_HOST:PORT...]

Makes DONE_FILE when all is here. It must never find peers by any other way
than the tracker in the torrent and those that it is given.
"""

import sys
import time

import libtorrent as lt


def main():
    torrent, save_path, listen, done, *peers = sys.argv[1:]
    session = lt.session({
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification,
    })
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = save_path
    handle = session.add_torrent(params)
    if peers:
        handle.replace_trackers([])
    said = False
    ticks = 0
    while True:
        for alert in session.pop_alerts():
            print(type(alert).__name__, alert.message(), flush=True)
        status = handle.status()
        if status.is_seeding and not said:
            open(done, "w").close()
            said = True
        if ticks % 20 == 0:
            print("%s %.1f%% peers %d" % (status.state, status.progress * 100, status.num_peers), flush=True)
            if not said:
                for peer in peers:
                    host, port = peer.rsplit(":", 1)
                    handle.connect_peer((host, int(port)))
        ticks += 1
        time.sleep(0.1)


main()
