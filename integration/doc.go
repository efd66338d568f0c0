// Package integration drives the built dcfs binary from outside, as operators
// do: command lines, exit codes, JSON, mounts, and the network between hosts.
// It also holds the tests about the source as a whole: its layers, its package
// comments, the length of its files.
//
// It must never import a package of the product: what it finds out counts
// because it knows no more than a user.
package integration
