package control

// A host tells its origins how it is, so that one page shows all hosts:
// POST ReportPath with a Report, answered by a ReportAnswer. Origins that do
// not know the path, or the release, answer 404 and are left alone.
const (
	ReportPath = "/v1/hosts"
	// MaxReport bounds a report in bytes.
	MaxReport = 64 << 10
	// MaxReportWaits bounds the waits in one: those that have lasted longest.
	MaxReportWaits = 8
	// MaxCells bounds the map of pieces in one.
	MaxCells = 1024
)

// Report is what a host tells of itself: its status, without its peers. Who it is
// follows from the address that it comes from and the port of peer_listen.
type Report struct {
	Host string `json:"host"`           // for people
	Rack string `json:"rack,omitempty"` // likewise
	// Cells say how much of each part of the release is here, 255 for all of it:
	// as many parts of equal size as there are pieces, and at most MaxCells. It
	// is left out when nothing is here or everything.
	Cells []byte `json:"cells,omitempty"`
	Status
}

// ReportAnswer tells the host when it is wanted again.
type ReportAnswer struct {
	Schema int   `json:"schema"`
	NextMS int64 `json:"next_ms"`
}
