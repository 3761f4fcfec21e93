//go:build race

package ibverbs

// raceDetector: it allocates where the program does not.
const raceDetector = true
