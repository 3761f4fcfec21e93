package tcpfallback

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nowhere reports whether what is written to a file is gone.
func nowhere(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeCharDevice != 0 && uint64(st.Rdev) == unix.Mkdev(1, 3)
}

// drop takes n bytes off the connection that are for nobody: the kernel gives their memory
// back where it is (MSG_TRUNC, tcp(7)). b is room for them, and stays as it is.
func drop(conn *lowWater, n int, b []byte) error {
	return conn.read(n, func(fd, done int) (int, error) {
		k, _, err := unix.Recvfrom(fd, b[done:n], unix.MSG_TRUNC)
		return k, err
	})
}
