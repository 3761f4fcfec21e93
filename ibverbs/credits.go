package ibverbs

// SendCredits accounts for one send queue, so that no program counts work
// requests by hand. A place in the queue is free again when a completion at or
// after it was polled, never when an answer came: so credits count completions.
// Not every request is signalled; each signalled one frees those before it too.
type SendCredits struct {
	free   int
	every  int   // a signal at least every so many requests
	open   int   // posted since the last signalled one
	groups []int // sizes of the groups that wait for their completion, oldest first
	head   int
	waits  int
}

// NewSendCredits accounts for a queue of depth requests, of which at least every
// every-th is signalled (1 signals all).
func NewSendCredits(depth, every int) *SendCredits {
	return &SendCredits{free: depth, every: max(1, min(every, depth)), groups: make([]int, depth)}
}

// Free is how many requests can be posted now.
func (c *SendCredits) Free() int { return c.free }

// Take accounts for one request that is about to be posted and marks it
// [SendSignaled] when it is due. The caller has made sure that Free is above 0.
func (c *SendCredits) Take(wr *SendWR) {
	c.free--
	c.open++
	if c.open >= c.every || c.free == 0 {
		wr.Flags |= SendSignaled
	}
	if wr.Flags&SendSignaled != 0 {
		c.groups[(c.head+c.waits)%len(c.groups)] = c.open
		c.waits++
		c.open = 0
	}
}

// PutBack takes the account of requests back that were taken and then not posted,
// the last of them first: a refused PostSend answers how many it did post. The
// requests' signals, which Take set, are cleared; whoever set one by hand sets it
// again before the next Take.
func (c *SendCredits) PutBack(wrs []SendWR) {
	for i := len(wrs) - 1; i >= 0; i-- {
		wr := &wrs[i]
		if wr.Flags&SendSignaled != 0 {
			wr.Flags &^= SendSignaled
			c.waits--
			c.open = c.groups[(c.head+c.waits)%len(c.groups)]
		}
		c.open--
		c.free++
	}
}

// Complete frees what one polled completion of the send queue stands for.
func (c *SendCredits) Complete() {
	if c.waits == 0 {
		return // a failed request reports itself even unsignalled; the queue is lost anyway
	}
	c.free += c.groups[c.head]
	c.head = (c.head + 1) % len(c.groups)
	c.waits--
}
