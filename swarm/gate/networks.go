package gate

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Networks is a list of networks; an empty one has every address.
type Networks []netip.Prefix

// ParseNetworks reads networks in CIDR notation (RFC 4632, RFC 4291) and single
// addresses, separated by commas.
func ParseNetworks(words ...string) (Networks, error) {
	var out Networks
	for s := range strings.SplitSeq(strings.Join(words, ","), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); e == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%.80q is no network: want an address and a length, such as 10.0.0.0/8 or fd00::/8", s)
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%.80q: write the IPv4 network itself, such as 10.0.0.0/8", s)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%.80q has bits behind its length: did you mean %s, or %s?", s, p.Masked(), p.Addr())
		}
		out = append(out, p)
	}
	return out, nil
}

// Has reports whether an address is in one of the networks.
func (n Networks) Has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return len(n) == 0
}

func (n Networks) has(a net.Addr) bool {
	if len(n) == 0 {
		return true
	}
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && n.Has(at.Addr())
}

// String returns the networks as ParseNetworks reads them.
func (n Networks) String() string {
	words := make([]string, len(n))
	for i, p := range n {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}
