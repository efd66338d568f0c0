//go:build race

package origin

func init() { raceDetector = true }
