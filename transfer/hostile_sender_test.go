package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func TestReceiverRefusesWhatNoSenderSays(t *testing.T) {
	a, b := entry(0, "a", 5), entry(1, "b", 5)
	for name, messages := range map[string][]wire.Message{
		"Hello again":                  {hello(VerifyBLAKE3)},
		"Welcome":                      {&wire.Welcome{ExtentSize: mib}},
		"OpenLane":                     {&wire.OpenLane{Depth: 1, TCP: &wire.TCPLane{}}},
		"Plan":                         {&wire.Plan{}},
		"Landed":                       {a, &wire.Landed{}},
		"Receipt":                      {a, receipt(0)},
		"Done":                         {a, &wire.Done{}},
		"first entry is not 0":         {b},
		"an entry twice":               {a, a},
		"an entry left out":            {a, entry(2, "c", 5)},
		"a path twice":                 {a, entry(1, "a", 6)},
		"a path twice, failed between": {entry(0, "d/a", 5), entry(1, "d/a", 6)},
		"an entry after the end":       {a, &wire.ManifestEnd{Files: 1, Bytes: 5}, b},
		"a file too few":               {a, &wire.ManifestEnd{Files: 2}},
		"a file too many":              {a, b, &wire.ManifestEnd{Files: 1}},
		"two ends":                     {a, &wire.ManifestEnd{Files: 1, Bytes: 5}, &wire.ManifestEnd{Files: 1, Bytes: 5}},
		"digests of no file":           {sums(0, "hello", 0)},
		"digests of a later file":      {a, sums(7, "hello", 0)},
		"digests before it landed":     {a, sums(0, "hello", 0)},
		"a voucher for no file":        {vouch(0)},
		"a voucher before it landed":   {entry(0, "a", mib), vouch(0)},
		"a stream of half an extent":   {&wire.Entry{Path: "a", Kind: wire.Stream}, &wire.Grown{Size: 5}},
		"a stream that shrinks":        {&wire.Entry{Path: "a", Kind: wire.Stream}, &wire.Grown{Size: mib}, &wire.Grown{}},
		"a stream after its end":       {&wire.Entry{Path: "a", Kind: wire.Stream}, &wire.Grown{Size: mib, End: true}, &wire.Grown{Size: 2 * mib}},
		"a file that grows":            {entry(0, "a", mib), &wire.Grown{Size: 2 * mib}},
		"digests of a directory":       {&wire.Entry{Path: "d", Kind: wire.Dir}, &wire.Digests{}},
		"a voucher for a directory":    {&wire.Entry{Path: "d", Kind: wire.Dir}, vouch(0)},
		"digests of a small file":      {a, &wire.Digests{}},
		"in no directory":              {entry(0, "d/a", 5)},
		"in a directory that was left": {&wire.Entry{Path: "d", Kind: wire.Dir}, entry(1, "a", 5), entry(2, "d/a", 5)},
		"in a file":                    {a, entry(1, "a/b", 5)},
		"a word about no entry":        {&wire.FileFailed{File: 3}},
		"a negative range of digests":  {entry(0, "a", 0), sums(0, "", 1<<31)},
		"a digest of a file of none":   {entry(0, "a", 0), sums(0, "", 0)},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
			bad.say(messages...)
			end := bad.finish()
			if !errors.Is(end.err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, end.err)
			}
			os.Remove(filepath.Join(bad.dir, "d")) // a directory is made when it comes
			wantFiles(t, bad.dir, nil)
		})
	}
}

func TestReceiverRefusesStrangeGreetings(t *testing.T) {
	version := hello(VerifyBLAKE3)
	version.Version = 99
	for name, c := range map[string]struct {
		m     wire.Message
		code  Code
		words string
	}{
		"version":        {version, CodeOther, "version 99"},
		"verification":   {hello("md5"), CodeUsage, "md5"},
		"no Hello":       {entry(0, "a", 1), CodeOther, "before Hello"},
		"it gives up":    {&wire.Abort{Code: 7, Reason: "never mind"}, CodeOther, "before Hello"},
		"nothing at all": {&wire.Ping{}, CodeConnect, "says nothing"},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil)
			e.Receiver.Observer = new(end)
			a, b := sessions(t)
			h := newHostile(t, a)
			go h.say(c.m)
			go func() {
				if heard := await[*wire.Abort](h); heard.Code != uint8(c.code) {
					t.Errorf("%s: the peer heard %+v", name, heard)
				}
				a.Close()
			}()
			began := time.Now()
			_, err := e.Receive(t.Context(), b)
			t.Log(name)
			if took := time.Since(began); took > helloLimit {
				t.Errorf("it took %v", took)
			}
			wantCode(t, err, c.code, c.words)
		})
	}
}

// TestReceiverPutsUpWithIdleTalk, and lands the file.
func TestReceiverPutsUpWithIdleTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(mib + 5)
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		write(t, filepath.Join(bad.dir, "exists"), "precious")
		bad.say(&wire.LaneAnswer{ID: 1}, &wire.LaneAnswer{ID: 1}, &wire.LaneAnswer{ID: 99}, &wire.LaneDown{ID: 99},
			entry(0, "f", int64(len(content))), entry(1, "exists", 5), &wire.ManifestEnd{Files: 2})
		bad.say(sums(1, "hello", 0), vouch(1), &wire.FileFailed{File: 1}) // of one that has failed
		bad.serve(2, content)
		await[*wire.Landed](bad.hostile)
		bad.say(sums(0, content, 0, 1), sums(0, content, 1), vouch(0), vouch(0), &wire.FileFailed{})
		if done := await[*wire.Done](bad.hostile); done.Files != 1 {
			t.Errorf("%+v", done)
		}
		end := bad.finish()
		wantCode(t, end.err, CodePartial)
		if end.Files != 1 || end.Failed != 1 || len(end.files) != 2 {
			t.Errorf("%+v, %+v", end.Result, end.files)
		}
		wantFiles(t, bad.dir, map[string]string{"f": content, "exists": "precious"})
	})
}

// TestVoucherWithoutDigestsIsWorthNothing, and neither is one with wrong ones.
func TestVoucherWithoutDigestsIsWorthNothing(t *testing.T) {
	content := random(2 * mib)
	for name, digests := range map[string][]wire.Message{
		"none":  nil,
		"one":   {sums(0, content, 0)},
		"wrong": {sums(0, random(2*mib), 0), sums(0, random(2*mib+1), 1)},
		"empty": {&wire.Digests{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
			bad.say(entry(0, "f", int64(len(content))), &wire.ManifestEnd{Files: 1})
			go func() {
				for {
					select {
					case r := <-bad.lane.requests:
						bad.lane.answers <- memAnswer{r: r, ok: true, p: []byte(content[r.Offset:][:r.Length])}
					case <-bad.lane.broken:
						return
					}
				}
			}()
			for range maxAttempts {
				await[*wire.Landed](bad.hostile)
				bad.say(digests...)
				bad.say(vouch(0))
			}
			if failed := await[*wire.FileFailed](bad.hostile); failed.Code != uint8(CodeIntegrity) {
				t.Errorf("%s: %+v", name, failed)
			}
			wantCode(t, bad.finish().err, CodeIntegrity)
			wantFiles(t, bad.dir, nil)
		})
	}
}

// TestFileThatIsNeverVouchedFor: the sender lives and owes a word.
func TestFileThatIsNeverVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyNone, nil)
		bad.say(entry(0, "f", 5), entry(1, "empty", 0), &wire.ManifestEnd{Files: 2})
		bad.serve(1, "hello")
		await[*wire.Done](bad.hostile)
		wantCode(t, bad.finish().err, CodeConnect, "none of 2", "has not said")
		wantFiles(t, bad.dir, nil)
	})
}

// TestLargeFileThatIsNeverVouchedFor stays for another try: a sender whose storage hangs for
// half a minute is no reason to send all of it again.
func TestLargeFileThatIsNeverVouchedFor(t *testing.T) {
	content := random(blockSize + mib)
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyNone, nil)
		bad.say(entry(0, "f", int64(len(content))), &wire.ManifestEnd{Files: 1})
		for range len(content) / mib {
			r := <-bad.lane.requests
			bad.lane.answers <- memAnswer{r: r, ok: true, p: []byte(content[r.Offset:][:r.Length])}
		}
		await[*wire.Done](bad.hostile)
		wantCode(t, bad.finish().err, CodeConnect, "has not said")
		if parts, err := filepath.Glob(filepath.Join(bad.dir, ".rdmaxfer*", "*"+partSuffix)); len(parts) != 1 || err != nil {
			t.Errorf("%q stay, %v", parts, err)
		}
	})
}

// TestVoucherForAStranger ends the session, and what it vouches for besides lands.
func TestVoucherForAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyNone, nil)
		bad.say(entry(0, "f", 5), entry(1, "empty", 0), &wire.ManifestEnd{Files: 2})
		bad.serve(1, "hello")
		synctest.Wait() // it has landed
		bad.say(&wire.Vouch{Files: []uint32{0, 99}})
		wantCode(t, bad.finish().err, CodeOther, "99")
		if got, err := os.ReadFile(filepath.Join(bad.dir, "f")); string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestRefusalsAreCountedFromTheFirst: new ones give the sender no more time to say
// why.
func TestRefusalsAreCountedFromTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyNone, nil)
		bad.say(entry(0, "f", 3*mib), &wire.ManifestEnd{Files: 1})
		began := time.Now()
		for range 3 {
			bad.lane.answers <- memAnswer{r: <-bad.lane.requests}
			time.Sleep(stallLimit / 2)
		}
		failed := await[*wire.FileFailed](bad.hostile)
		if took := time.Since(began); took > 2*stallLimit-stallLimit/4 {
			t.Errorf("%v, after %v", failed, took)
		}
		bad.finish()
	})
}

// TestVoucherIsAWord: the time that the sender has for it begins anew when extents
// were asked for again.
func TestVoucherIsAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		content := random(mib)
		bad.say(entry(0, "f", mib), &wire.ManifestEnd{Files: 1})
		for _, digests := range []*wire.Digests{{}, sums(0, content, 0)} {
			time.Sleep(stallLimit * 2 / 3)
			bad.serve(1, content)
			await[*wire.Landed](bad.hostile)
			time.Sleep(stallLimit * 2 / 3)
			bad.say(digests, vouch(0))
		}
		if done := await[*wire.Done](bad.hostile); done.Files != 1 {
			t.Errorf("%+v", done)
		}
		if err := bad.finish().err; err != nil {
			t.Error(err)
		}
		wantFiles(t, bad.dir, map[string]string{"f": content})
	})
}

// TestClaimedSizesTakeNoMemory: a manifest may say what it likes.
func TestClaimedSizesTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, Discard{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		bad.say(entry(0, "f", wire.MaxSize))
		bad.serve(10, random(30*mib))
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 200*mib {
			t.Errorf("%d bytes", took)
		}
		wantCode(t, bad.finish().err, CodeConnect)
	})
}

func TestPeersFailureWithoutACodeIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		bad.say(entry(0, "f", 5), &wire.FileFailed{Code: 0, Reason: "because"}, &wire.ManifestEnd{Files: 1})
		await[*wire.Done](bad.hostile)
		wantCode(t, bad.finish().err, CodeOther, "because")
		wantFiles(t, bad.dir, nil)
	})
}

func TestLaneThatTheSenderNeverOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		e.Receiver.Transport = TransportRDMA
		e.Receiver.Observer = new(end)
		a, b := sessions(t)
		h := newHostile(t, a)
		go func() {
			h.say(hello(VerifyBLAKE3))
			await[*wire.Abort](h)
			a.Close()
		}()
		_, err := e.Receive(t.Context(), b)
		wantCode(t, err, CodeNoRDMA, "did not open its end of a rdma lane within 10s")
	})
}

// TestDigestsOfWhatWasNotAskedFor take no memory.
func TestDigestsOfWhatWasNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		bad.say(entry(0, "f", 100*mib))
		synctest.Wait()
		bad.say(sums(0, random(mib), 0, DefaultDepth-1), sums(0, "", DefaultDepth))
		if err := bad.finish().err; !errors.Is(err, wire.ErrMalformed) {
			t.Error(err)
		}
	})
}

func TestFailedFileIsAskedForNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		bad.say(entry(0, "f", 100*mib))
		synctest.Wait()
		n := len(bad.lane.requests)
		bad.say(&wire.FileFailed{Code: 7, Reason: "it was truncated"})
		synctest.Wait()
		bad.serve(n, string(make([]byte, 100*mib)))
		synctest.Wait()
		if more := len(bad.lane.requests); n != DefaultDepth || more > 0 {
			t.Errorf("%d requests, and %d after the file had failed", n, more)
		}
		bad.finish()
		wantFiles(t, bad.dir, nil)
	})
}
