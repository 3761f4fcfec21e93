package wire

// The kinds, in the order in which a session uses them.
const (
	kindHello Kind = iota + 1
	kindWelcome
	kindOpenLane
	kindLaneAnswer
	kindLaneDown
	kindPlan
	kindEntry
	kindManifestEnd
	kindDigests
	kindLanded
	kindVouch
	kindFileFailed
	kindReceipt
	kindDone
	kindAbort
	kindPing
	kindMore
	kindGrown
	kindKept
	kindMeasure
	kindMeasuring
	kindMeasured
	kindForeseen
	kindOffer
	kindAskOffer
	kindProbePath
	kindPathAnswer
	kindProbesOver
	kindProbesSeen
	kindPaths
	kindRunTool
	kindToolReady
	kindToolDone
	kindToolEnded
	kindVerbs
	kindVerbsEnd
	kindVerbsReady
	kindVerbsStop
	kindVerbsOver
	kindAskHardware
	kindHardware
)

func newMessage(k Kind) Message {
	switch k {
	case kindHello:
		return new(Hello)
	case kindWelcome:
		return new(Welcome)
	case kindOpenLane:
		return new(OpenLane)
	case kindLaneAnswer:
		return new(LaneAnswer)
	case kindLaneDown:
		return new(LaneDown)
	case kindPlan:
		return new(Plan)
	case kindEntry:
		return new(Entry)
	case kindManifestEnd:
		return new(ManifestEnd)
	case kindDigests:
		return new(Digests)
	case kindLanded:
		return new(Landed)
	case kindVouch:
		return new(Vouch)
	case kindFileFailed:
		return new(FileFailed)
	case kindReceipt:
		return new(Receipt)
	case kindDone:
		return new(Done)
	case kindAbort:
		return new(Abort)
	case kindPing:
		return new(Ping)
	case kindMore:
		return new(More)
	case kindGrown:
		return new(Grown)
	case kindKept:
		return new(Kept)
	case kindMeasure:
		return new(Measure)
	case kindMeasuring:
		return new(Measuring)
	case kindMeasured:
		return new(Measured)
	case kindForeseen:
		return new(Foreseen)
	case kindOffer:
		return new(Offer)
	case kindAskOffer:
		return new(AskOffer)
	case kindProbePath:
		return new(ProbePath)
	case kindPathAnswer:
		return new(PathAnswer)
	case kindProbesOver:
		return new(ProbesOver)
	case kindProbesSeen:
		return new(ProbesSeen)
	case kindPaths:
		return new(Paths)
	case kindRunTool:
		return new(RunTool)
	case kindToolReady:
		return new(ToolReady)
	case kindToolDone:
		return new(ToolDone)
	case kindToolEnded:
		return new(ToolEnded)
	case kindVerbs:
		return new(Verbs)
	case kindVerbsEnd:
		return new(VerbsEnd)
	case kindVerbsReady:
		return new(VerbsReady)
	case kindVerbsStop:
		return new(VerbsStop)
	case kindVerbsOver:
		return new(VerbsOver)
	case kindAskHardware:
		return new(AskHardware)
	case kindHardware:
		return new(Hardware)
	}
	return nil
}

// Hello is the sender's first message: who it is and what it would like.
type Hello struct {
	Version   uint16   `cbor:"1,keyasint"`
	Transport string   `cbor:"2,keyasint"`           // auto, rdma, tcp
	Op        string   `cbor:"3,keyasint"`           // auto, read, write, send
	Verify    string   `cbor:"4,keyasint"`           // blake3, xxh3, crc32c, none
	Lanes     uint16   `cbor:"5,keyasint"`           // 0: as many as the receiver finds paths
	RDMA      *Offer   `cbor:"6,keyasint,omitempty"` // nil: RDMA is not to be used
	Transfer  [16]byte `cbor:"8,keyasint"`           // the same for the same command: what resume goes by
	Measure   bool     `cbor:"9,keyasint,omitempty"` // nothing is to land: Measure follows, and not a manifest
	// DryRun asks for a Foreseen or a FileFailed for each Entry, and for nothing else. A
	// receiver that does not know it refuses the whole message, so nothing is moved either.
	DryRun bool `cbor:"10,keyasint,omitempty"`
	// Encrypt has all lanes be TCP under TLS. A receiver that does not know it refuses.
	Encrypt bool `cbor:"11,keyasint,omitempty"`
	// PathsOnly asks for Paths, all pairs tried, and for nothing else.
	PathsOnly bool `cbor:"12,keyasint,omitempty"`
	// Limit is the rate that the sender's user set, bytes a second, where it is so low that
	// an answer would be missed; else 0.
	Limit int64 `cbor:"13,keyasint,omitempty"`
}

// Welcome is the receiver's answer to Hello.
type Welcome struct {
	Version    uint16   `cbor:"1,keyasint"`
	Session    [16]byte `cbor:"2,keyasint"` // names the session on its lanes; no secret
	ExtentSize uint32   `cbor:"3,keyasint"`
	Entries    uint32   `cbor:"4,keyasint"`           // of the manifest that may be sent before the first More
	Durable    bool     `cbor:"5,keyasint,omitempty"` // a Receipt means that a power cut can't take the file away
	// Prompt asks for the digest of each extent as soon as it is known: the receiver asks
	// for no more until it has those.
	Prompt bool `cbor:"6,keyasint,omitempty"`
	Tools  bool `cbor:"7,keyasint,omitempty"` // RunTool is not refused
}

// QueuePair is one end of a reliable connection (ibverbs.Endpoint).
type QueuePair struct {
	QPN uint32   `cbor:"1,keyasint"`
	PSN uint32   `cbor:"2,keyasint"`
	GID [16]byte `cbor:"3,keyasint"`
	LID uint16   `cbor:"4,keyasint,omitempty"`
	MTU uint8    `cbor:"5,keyasint"`
	GRH bool     `cbor:"6,keyasint,omitempty"` // its port wants the global header on every packet
}

// RDMALane is what the two ends of a queue pair tell each other.
type RDMALane struct {
	Candidate uint16    `cbor:"1,keyasint"` // in OpenLane: Number of the sender's that it shall use
	Device    string    `cbor:"2,keyasint"` // the teller's own
	QP        QueuePair `cbor:"3,keyasint"`
	Op        string    `cbor:"4,keyasint"` // read, write, send
	// Reads is how many RDMA READs may be outstanding (op read): what the receiver's
	// device can ask for, then what the sender's can serve of that.
	Reads uint8 `cbor:"5,keyasint,omitempty"`
	// PKey is the partition that the other end shall use; 0 for its port's first.
	PKey   uint16 `cbor:"6,keyasint,omitempty"`
	Fabric Fabric `cbor:"7,keyasint"` // what the teller's user wants
}

// TCPLane is the ticket of a TCP lane: the secret that its proofs are made from.
type TCPLane struct {
	Ticket [32]byte `cbor:"1,keyasint"`
	// Kernel is which kernel the receiver runs on, as nobody can read who has neither the ticket
	// nor that kernel; empty where it is not told. What it is made of is the transport's.
	Kernel string `cbor:"2,keyasint"`
}

// OpenLane is the receiver's wish for one more lane. Exactly one of RDMA, TCP and UDP
// is set.
type OpenLane struct {
	ID    uint32    `cbor:"1,keyasint"`
	Depth uint16    `cbor:"2,keyasint"` // requests in flight at the most
	RDMA  *RDMALane `cbor:"3,keyasint,omitempty"`
	TCP   *TCPLane  `cbor:"4,keyasint,omitempty"`
	UDP   *UDPLane  `cbor:"5,keyasint,omitempty"` // to measure with, and for nothing else
}

// LaneAnswer says that the sender's end is ready, or why not.
type LaneAnswer struct {
	ID     uint32    `cbor:"1,keyasint"`
	Reason string    `cbor:"2,keyasint,omitempty"` // set: there is no such lane
	RDMA   *RDMALane `cbor:"3,keyasint,omitempty"`
	Method string    `cbor:"4,keyasint,omitempty"` // TCP: the method that is used
	UDP    *UDPLane  `cbor:"5,keyasint,omitempty"`
}

// LaneDown says that a lane ended, and why.
type LaneDown struct {
	ID     uint32 `cbor:"1,keyasint"`
	Reason string `cbor:"2,keyasint"`
}

// Plan tells the sender what carries the data from now on.
type Plan struct {
	Transport string   `cbor:"1,keyasint"`           // rdma, tcp
	Lanes     []uint32 `cbor:"2,keyasint"`           // by number; each end describes its own side of them
	Reason    string   `cbor:"3,keyasint,omitempty"` // why not what was asked for
}

// EntryKind is what an entry of the manifest is.
type EntryKind uint8

// The kinds of entries.
const (
	File     EntryKind = iota // regular, of Size bytes
	Dir                       // before everything in it; the tree is sent depth first
	Symlink                   // to Link
	Stream                    // of a length that Grown tells when it ends
	HardLink                  // one more name of the file of entry First, whose path is Link
	entryEnd
)

// Entry is one line of the manifest.
type Entry struct {
	File    uint32    `cbor:"1,keyasint"` // its number, counted from 0, in order
	Path    string    `cbor:"2,keyasint"` // relative, slash-separated
	Size    int64     `cbor:"3,keyasint"` // bytes; 0 for what is not a regular file
	Mode    uint32    `cbor:"4,keyasint"` // permission bits
	MTimeNS int64     `cbor:"5,keyasint"` // nanoseconds since 1970
	Kind    EntryKind `cbor:"6,keyasint,omitempty"`
	Link    string    `cbor:"7,keyasint,omitempty"`  // where a link points
	Sparse  bool      `cbor:"8,keyasint,omitempty"`  // it has holes, and shall keep them
	Version uint64    `cbor:"9,keyasint,omitempty"`  // changes when the source does, though size and time may not
	First   uint32    `cbor:"10,keyasint,omitempty"` // entry that a hard link is another name of
	Owner   *Owner    `cbor:"11,keyasint,omitempty"` // when it shall be kept
	Attrs   []Attr    `cbor:"12,keyasint,omitempty"` // extended attributes that shall be kept
}

// Owner is whose a file is, by name and number at the sender's host.
type Owner struct {
	UID   uint32 `cbor:"1,keyasint"`
	GID   uint32 `cbor:"2,keyasint"`
	User  string `cbor:"3,keyasint,omitempty"`
	Group string `cbor:"4,keyasint,omitempty"`
}

// Attr is an extended attribute (xattr(7)).
type Attr struct {
	Name  string `cbor:"1,keyasint"`
	Value []byte `cbor:"2,keyasint"`
}

// The attributes that access control lists are kept in (acl(5)).
const (
	ACLAccess  = "system.posix_acl_access"
	ACLDefault = "system.posix_acl_default"
)

// MaxAttrs is how much an entry's extended attributes may be, bytes.
const MaxAttrs = 128 << 10

// More lets the sender send the entries with numbers below Entries: what has not
// settled takes memory at both ends.
type More struct {
	Entries uint32 `cbor:"1,keyasint"`
}

// Grown says how much of a stream the sender has read: whole extents, or all of it.
type Grown struct {
	File uint32 `cbor:"1,keyasint"`
	Size int64  `cbor:"2,keyasint"` // bytes, from the stream's beginning
	End  bool   `cbor:"3,keyasint"` // there is no more
}

// Kept says that a stream's extents below Below have landed for good: the sender may
// forget them.
type Kept struct {
	File  uint32 `cbor:"1,keyasint"`
	Below uint32 `cbor:"2,keyasint"` // an extent's number
}

// ManifestEnd says that no Entry follows, or no Measure; with More, that none follows
// before the receiver's Done of those that came.
type ManifestEnd struct {
	Files  uint32 `cbor:"1,keyasint"`           // entries, all told
	Bytes  int64  `cbor:"2,keyasint"`           // without those of streams
	Unsent uint32 `cbor:"3,keyasint,omitempty"` // what the sender was told to send and could not make an entry of
	More   bool   `cbor:"4,keyasint,omitempty"` // the session goes on
}

// Digests are the sender's digests of extents that it has served: 32 bytes each,
// one after the other.
type Digests struct {
	File    uint32   `cbor:"1,keyasint"`
	Extents []uint32 `cbor:"2,keyasint"` // extent numbers: offset ÷ extent size
	Sums    []byte   `cbor:"3,keyasint"`
}

// Landed says that every extent of a file has landed: the sender checks that its
// file is still the one that the manifest speaks of, and vouches.
type Landed struct {
	File uint32 `cbor:"1,keyasint"`
}

// Vouch follows all the Digests of files that did not change while they were read. For
// the files of a pack it comes without having been asked for, and has their digests with
// it, if digests are taken.
type Vouch struct {
	Files   []uint32 `cbor:"1,keyasint"`
	Digests []byte   `cbor:"2,keyasint,omitempty"` // 32 bytes each, one after the other
}

// FileFailed says that one file will not arrive, and why; the others go on.
type FileFailed struct {
	File   uint32 `cbor:"1,keyasint"`
	Code   uint8  `cbor:"2,keyasint"` // exit code of the contract
	Reason string `cbor:"3,keyasint"`
}

// Receipt says that entries have their names and are durable: files with digests, or
// entries without.
type Receipt struct {
	Files   []uint32 `cbor:"1,keyasint"`
	Digests []byte   `cbor:"2,keyasint,omitempty"` // of the whole files, as b3sum prints them
}

// Foreseen answers an Entry of a dry run that would land.
type Foreseen struct {
	File     uint32 `cbor:"1,keyasint"`
	Here     int64  `cbor:"2,keyasint,omitempty"` // bytes of it that have landed before
	Done     bool   `cbor:"3,keyasint,omitempty"` // it is there: nothing would be done
	Replaces bool   `cbor:"4,keyasint,omitempty"` // something else has its name, and would lose it
}

// Done is the receiver's last word: what landed, by its own clock from the first
// request to the last byte durable.
type Done struct {
	Files       uint32      `cbor:"1,keyasint"`
	Bytes       int64       `cbor:"2,keyasint"`
	Nanoseconds int64       `cbor:"3,keyasint"`
	Lanes       []LaneBytes `cbor:"4,keyasint,omitempty"`
	Resumed     int64       `cbor:"5,keyasint,omitempty"` // of Bytes, what had landed before
}

// LaneBytes says how much landed over one lane.
type LaneBytes struct {
	ID    uint32 `cbor:"1,keyasint"`
	Bytes int64  `cbor:"2,keyasint"`
}

// Abort ends the session for a reason that both ends report.
type Abort struct {
	Code   uint8  `cbor:"1,keyasint"`
	Reason string `cbor:"2,keyasint"`
}

// Ping says that its sender lives.
type Ping struct{}

func (*Hello) kind() Kind       { return kindHello }
func (*Welcome) kind() Kind     { return kindWelcome }
func (*OpenLane) kind() Kind    { return kindOpenLane }
func (*LaneAnswer) kind() Kind  { return kindLaneAnswer }
func (*LaneDown) kind() Kind    { return kindLaneDown }
func (*Plan) kind() Kind        { return kindPlan }
func (*Entry) kind() Kind       { return kindEntry }
func (*ManifestEnd) kind() Kind { return kindManifestEnd }
func (*Digests) kind() Kind     { return kindDigests }
func (*Landed) kind() Kind      { return kindLanded }
func (*Vouch) kind() Kind       { return kindVouch }
func (*FileFailed) kind() Kind  { return kindFileFailed }
func (*Receipt) kind() Kind     { return kindReceipt }
func (*Done) kind() Kind        { return kindDone }
func (*Abort) kind() Kind       { return kindAbort }
func (*Ping) kind() Kind        { return kindPing }
func (*More) kind() Kind        { return kindMore }
func (*Grown) kind() Kind       { return kindGrown }
func (*Kept) kind() Kind        { return kindKept }
func (*Foreseen) kind() Kind    { return kindForeseen }
