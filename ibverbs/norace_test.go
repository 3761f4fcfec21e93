//go:build !race

package ibverbs

const raceDetector = false
