//go:build rxe && !race

package ibverbs

const raceDetector = false
