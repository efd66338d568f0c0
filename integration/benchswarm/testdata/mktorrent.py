"""Makes a plain torrent of a directory: mktorrent.py DIR TORRENT"""

import os
import sys

import libtorrent as lt

files = lt.file_storage()
lt.add_files(files, sys.argv[1])
torrent = lt.create_torrent(files, 256 << 10, lt.create_torrent.v1_only)
torrent.set_priv(False)
lt.set_piece_hashes(torrent, os.path.dirname(sys.argv[1]))
with open(sys.argv[2], "wb") as f:
    f.write(lt.bencode(torrent.generate()))
