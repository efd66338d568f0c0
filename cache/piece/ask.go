package piece

import "time"

// Ask says that a peer was asked for blocks of a piece.
type Ask struct {
	Peer    string    // HOST:PORT
	Since   time.Time // when the first block was asked for
	Blocks  int       // how many requests are outstanding there now
	Dropped time.Time // when the last request ended without a block; zero while some are outstanding
}
