package config

import (
	"fmt"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// quantity is a number with a unit: "4GiB", "1.5 MB/s", "1048576".
var quantity = regexp.MustCompile(`^([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)(/s)?$`)

// scale is what the prefix of a unit multiplies by.
var scale = map[string]int64{
	"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15,
	"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40, "pi": 1 << 50,
}

// ParseSize reads a number of bytes: "1048576", "200MiB" (2^20), "4GB" (10^9).
// Fractions of a byte are dropped.
func ParseSize(s string) (int64, error) {
	m := quantity.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil || m[3] != "" {
		return 0, fmt.Errorf("%.40q is no size: want a number and a unit, such as 512KiB, 200MiB or 4GB", s)
	}
	factor, err := byteFactor(m[2])
	if err != nil {
		return 0, fmt.Errorf("the size %.40q: %w", s, err)
	}
	n, _, err := multiply(m[1], factor, 1)
	if err != nil {
		return 0, fmt.Errorf("the size %.40q %w", s, err)
	}
	return n, nil
}

// ParseRate reads a rate and returns bytes a second: "100MB/s", "20MiB",
// "800Mbit/s" (bits, an eighth). "0" is no limit and gives 0; a rate above 0
// but below a byte a second is refused, because 0 means the opposite of it.
func ParseRate(s string) (int64, error) {
	m := quantity.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%.40q is no rate: want a number and a unit, such as 100MB/s, 20MiB/s, 800Mbit/s, or 0 for no limit", s)
	}
	factor, div, err := rateFactor(m[2])
	if err != nil {
		return 0, fmt.Errorf("the rate %.40q: %w", s, err)
	}
	n, isZero, err := multiply(m[1], factor, div)
	if err != nil {
		return 0, fmt.Errorf("the rate %.40q %w", s, err)
	}
	if n == 0 && !isZero {
		return 0, fmt.Errorf("the rate %.40q is less than a byte a second; 0 is no limit", s)
	}
	return n, nil
}

// byteFactor returns how many bytes a unit is. A lone prefix is refused: to
// some tools G is 10^9 and to others 2^30.
func byteFactor(unit string) (int64, error) {
	lower := strings.ToLower(unit)
	prefix, isBytes := strings.CutSuffix(lower, "b")
	factor, ok := scale[prefix]
	switch {
	case ok && (isBytes || unit == ""):
		return factor, nil
	case ok && len(prefix) == 1:
		return 0, fmt.Errorf("the unit %q is ambiguous: want %[2]sB (powers of 1000) or %[2]siB (powers of 1024)", unit, strings.ToUpper(unit))
	}
	return 0, fmt.Errorf("the unit %q is not known: want B, kB, MB, GB, TB or KiB, MiB, GiB, TiB", unit)
}

// rateFactor returns a unit as bytes a second, as a fraction.
func rateFactor(unit string) (factor, div int64, err error) {
	if prefix, isBits := strings.CutSuffix(strings.ToLower(unit), "bit"); isBits {
		if factor, ok := scale[prefix]; ok {
			return factor, 8, nil
		}
	}
	if strings.HasSuffix(unit, "b") || strings.HasSuffix(strings.ToLower(unit), "bps") {
		return 0, 0, fmt.Errorf("the unit %q is ambiguous: want bytes, such as MB/s, or bits, such as Mbit/s", unit)
	}
	factor, err = byteFactor(unit)
	return factor, 1, err
}

// multiply returns number × factor ÷ div, rounded down, and whether the number
// is 0.
func multiply(number string, factor, div int64) (n int64, isZero bool, err error) {
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, false, fmt.Errorf("is no number")
	}
	isZero = r.Sign() == 0
	r.Mul(r, big.NewRat(factor, div))
	whole := new(big.Int).Quo(r.Num(), r.Denom())
	if !whole.IsInt64() {
		return 0, false, fmt.Errorf("is too large")
	}
	return whole.Int64(), isZero, nil
}

// ParseListen reads an address to listen on, HOST:PORT, and returns it in its
// usual spelling. HOST may be empty for every address of this host, PORT 0 for
// any free port.
func ParseListen(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%.80q is no address to listen on: want HOST:PORT, such as 0.0.0.0:7070, [::1]:7070 or :7070", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%.80q: the port %q is no number from 0 to 65535", s, port)
	}
	if !hostname(host) {
		return "", fmt.Errorf("%.80q: %q is no host name or IP address", s, host)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

func hostname(s string) bool {
	bare, _, _ := strings.Cut(s, "%") // the zone of an IPv6 address
	if s == "" || net.ParseIP(bare) != nil {
		return true
	}
	return len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}
