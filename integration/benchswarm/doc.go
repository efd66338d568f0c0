// Package benchswarm measures a whole swarm: one origin and N hosts on shaped
// links, with dcfs and with other programs in turn, against the time that no
// program can go below. It is a benchmark, run by `make bench-swarm`.
//
// It must never import a package of the product, and never decide that a figure
// is good or bad: it prints them.
package benchswarm
