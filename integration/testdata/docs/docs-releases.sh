# An origin without releases; apart.py is the page's own.
prepare() {
	mkdir -p /etc/dcfs/trusted.d
	dcfs origin
	sample build 1
	cp /machine/block-*.python apart.py
}
