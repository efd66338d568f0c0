package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

const traceExt = ".trace"

// TraceType is the Content-Type of a trace, see fs/prefetch.
const TraceType = "application/x-ndjson"

// TraceResponse answers PUT /v1/releases/VERSION.trace: 201 when the trace was
// taken, 200 when the origin has enough of them.
type TraceResponse struct {
	Schema int  `json:"schema"`
	Taken  bool `json:"taken"`
}

// Trace returns what the origins tell of the order in which the release is
// read, up to limit bytes, unparsed. That there is nothing wraps
// ErrUnknownRelease.
func (c *Client) Trace(ctx context.Context, version Version, limit int64) ([]byte, error) {
	var body []byte
	err := each(c.Origins, "trace of release "+string(version), func(origin string) error {
		u, err := releaseURL(origin, version)
		if err != nil {
			return err
		}
		body, err = c.get(ctx, u+traceExt, limit)
		return err
	})
	return body, err
}

// PutTrace gives a trace of the release to the first origin that answers, with
// Token. It reports whether it was taken: an origin takes those of a few hosts.
func (c *Client) PutTrace(ctx context.Context, version Version, trace []byte) (taken bool, err error) {
	err = each(c.Origins, "giving a trace of release "+string(version), func(origin string) (err error) {
		taken, err = c.putTrace(ctx, origin, version, trace)
		return err
	})
	return taken, err
}

func (c *Client) putTrace(ctx context.Context, origin string, version Version, trace []byte) (bool, error) {
	u, err := releaseURL(origin, version)
	if err != nil {
		return false, err
	}
	ctx, w, stop := newWatch(ctx, stallTimeout)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u+traceExt, bytes.NewReader(trace))
	if err != nil {
		return false, fail(ErrUsage, err)
	}
	req.Header.Set("Content-Type", TraceType)
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Expect", "100-continue") // a refusal comes before the trace goes
	res, err := c.do(req)
	if err != nil {
		return false, transportFailure(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return false, statusFailure(res, w)
	}
	var r TraceResponse
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, maxError)).Decode(&r); err != nil || r.Schema != Schema {
		return false, fail(ErrBadAnswer, fmt.Errorf("what it sent is not the answer of an origin (%v)", err))
	}
	return r.Taken, nil
}
