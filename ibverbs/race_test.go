//go:build rxe && race

package ibverbs

// raceDetector: it allocates where the program does not.
const raceDetector = true
