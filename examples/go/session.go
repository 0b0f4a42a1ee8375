package main

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "example.com/duologue-chat/gen/duologue/chat/v1"
)

const (
	resendDelay      = 100 * time.Millisecond // of a deferred message without its own
	cursorRetryDelay = time.Second
)

// lostError says that the connection is gone: connect again, but not before
// retryAfter.
type lostError struct {
	why        string
	retryAfter time.Duration
}

func (e *lostError) Error() string { return e.why }

// stopError says that connecting again by oneself would not help.
type stopError struct{ why string }

func (e *stopError) Error() string { return e.why }

type state int

const (
	waiting state = iota
	inFlight
	deferred
)

// pending is a message that is not settled. Its id never changes.
type pending struct {
	id, text string
	state    state
}

// device is what a device knows, over all its connections. A real client writes it
// to disk before it sends from it; then all that follows holds when its own
// process is killed, too.
type device struct {
	id            string
	connectNumber uint64
	historyID     string
	syncToken     string
	position      uint64 // every message up to here is here
	read          uint64 // up to here the person has read
	readConfirmed uint64 // up to here the server has stored that
	peerRead      uint64 // up to here the peer has
	outbox        []*pending
}

// forgetHistory drops sequences, which mean nothing in another history. What is
// not sent stays.
func (d *device) forgetHistory() {
	*d = device{id: d.id, connectNumber: d.connectNumber, outbox: d.outbox}
}

// session is the decisions of a client, without I/O: what the server says goes in,
// what is to be sent comes out. It keeps the promises of the contract while the
// connection comes and goes:
//
//   - A message stays in the outbox, under one id, until the server has said that
//     it is stored. Until then every new connection sends it again, the oldest
//     first.
//   - The position says up to where every message is here, without a gap. Together
//     with the sync token and the history id it brings exactly what is missing.
//   - The connect number rises with every connect, so that the newest one counts.
//
// It is not safe for concurrent use.
type session struct {
	device
	peer string
	tell func(format string, args ...any)

	user        string
	noMoreInput bool

	// Of one connection.
	caughtUp    bool
	abandons    []string
	readAsked   uint64
	resumeAt    time.Time
	cursorAt    time.Time
	maxInFlight int

	stored, duplicates, rejected int
}

// begin forgets what an earlier connection sent: on the next one it is not sent yet.
func (s *session) begin() {
	for _, m := range s.outbox {
		m.state = waiting
	}
	s.caughtUp = false
	s.abandons = nil
	s.readAsked = s.readConfirmed
	s.resumeAt, s.cursorAt = time.Time{}, time.Time{}
	s.maxInFlight = 1
}

func (s *session) send(text string) {
	s.outbox = append(s.outbox, &pending{id: rand.Text(), text: text})
}

// hello is the first frame up.
func (s *session) hello() *chatv1.ConverseRequest {
	// By the clock, so that it rises over restarts, too.
	s.connectNumber = max(uint64(time.Now().UnixMilli()), s.connectNumber+1)
	hello := &chatv1.Hello{
		DeviceId:      proto.String(s.id),
		ConnectNumber: proto.Uint64(s.connectNumber),
		HistoryId:     s.historyID,
		SyncToken:     s.syncToken,
		Positions:     []*chatv1.Position{{Peer: s.peer, Seq: s.position}},
		ClientName:    "example-go",
	}
	if s.read > s.readConfirmed {
		s.readAsked = s.read
		hello.Cursors = []*chatv1.AdvanceCursor{{Peer: s.peer, Read: proto.Uint64(s.read)}}
	}
	return &chatv1.ConverseRequest{Frame: &chatv1.ConverseRequest_Hello{Hello: hello}}
}

// nextFrame is the next frame to send, or nil.
func (s *session) nextFrame() *chatv1.ConverseRequest {
	now := time.Now()
	if len(s.abandons) > 0 {
		abandon := &chatv1.Abandon{MessageId: s.abandons[0]}
		s.abandons = s.abandons[1:]
		return &chatv1.ConverseRequest{Frame: &chatv1.ConverseRequest_Abandon{Abandon: abandon}}
	}
	if s.read > s.readAsked && !now.Before(s.cursorAt) {
		s.readAsked = s.read
		cursor := &chatv1.AdvanceCursor{Peer: s.peer, Read: proto.Uint64(s.read)}
		return &chatv1.ConverseRequest{Frame: &chatv1.ConverseRequest_AdvanceCursor{AdvanceCursor: cursor}}
	}
	m := s.nextMessage(now)
	if m == nil {
		return nil
	}
	m.state = inFlight
	send := &chatv1.SendMessage{
		Peer:      s.peer,
		MessageId: proto.String(m.id),
		// An earlier copy can only be behind this: whatever is up to the position
		// was seen, and what was seen there has left the outbox.
		AfterSeq: proto.Uint64(s.position),
		Body:     &chatv1.Body{Kind: &chatv1.Body_Text{Text: m.text}},
	}
	return &chatv1.ConverseRequest{Frame: &chatv1.ConverseRequest_SendMessage{SendMessage: send}}
}

// nextMessage is the oldest that waits. After a deferral all answers are awaited,
// and then what was deferred goes again, in order.
func (s *session) nextMessage(now time.Time) *pending {
	var count [3]int
	for _, m := range s.outbox {
		count[m.state]++
	}
	if count[deferred] > 0 {
		if count[inFlight] > 0 || now.Before(s.resumeAt) {
			return nil
		}
		for _, m := range s.outbox {
			m.state = waiting
		}
	}
	if count[inFlight] >= s.maxInFlight {
		return nil
	}
	for _, m := range s.outbox {
		if m.state == waiting {
			return m
		}
	}
	return nil
}

// nextDeadline is when nextFrame may have something by the passing of time; zero:
// never.
func (s *session) nextDeadline() time.Time {
	var next time.Time
	for _, at := range []time.Time{s.resumeAt, s.cursorAt} {
		if at.After(time.Now()) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// hasSaidAll: input has ended, and nothing is left to send or to send again.
func (s *session) hasSaidAll() bool {
	left := len(s.outbox) > 0 || len(s.abandons) > 0 || s.read > s.readAsked
	return s.noMoreInput && !left
}

func (s *session) isDone() bool { return s.hasSaidAll() && s.read <= s.readConfirmed }

// receive takes a frame from the server. A kind that is not known, or of no use
// here, is ignored.
func (s *session) receive(response *chatv1.ConverseResponse) error {
	switch frame := response.Frame.(type) {
	case *chatv1.ConverseResponse_Welcome:
		s.onWelcome(frame.Welcome)
	case *chatv1.ConverseResponse_Stored:
		s.onStored(frame.Stored)
	case *chatv1.ConverseResponse_Rejected:
		s.onRejected(frame.Rejected)
	case *chatv1.ConverseResponse_Deferred:
		return s.onDeferred(frame.Deferred)
	case *chatv1.ConverseResponse_MessageDelivered:
		return s.onDelivered(frame.MessageDelivered.GetEnvelope())
	case *chatv1.ConverseResponse_CursorStored:
		if stored := frame.CursorStored; stored.Peer == s.peer {
			s.readConfirmed = max(s.readConfirmed, stored.GetCursor().GetRead())
		}
	case *chatv1.ConverseResponse_CursorRejected:
		return s.onCursorRejected(frame.CursorRejected)
	case *chatv1.ConverseResponse_ReceiptAdvanced:
		s.onReceipt(frame.ReceiptAdvanced)
	case *chatv1.ConverseResponse_CaughtUp:
		s.caughtUp = true
		s.syncToken = frame.CaughtUp.SyncToken
		s.tell("* caught up")
	case *chatv1.ConverseResponse_Goodbye:
		return s.onGoodbye(frame.Goodbye)
	}
	return nil
}

func (s *session) onWelcome(welcome *chatv1.Welcome) {
	s.user = welcome.User
	s.historyID = welcome.HistoryId
	s.maxInFlight = max(1, int(welcome.GetLimits().GetMaxSendsInFlight()))
	s.tell("* connected as %s, who has [%d]", s.user, s.position)
}

func (s *session) onStored(stored *chatv1.Stored) {
	how := ""
	if stored.Duplicate {
		s.duplicates++
		how = ", by an earlier try"
	}
	m := s.settle(stored.MessageId)
	if m == nil {
		return // it was seen in what was missed
	}
	s.stored++
	s.tell("  stored [%d]%s", stored.Seq, how)
	// The position never moves over a gap: then the message comes in its turn.
	if stored.Seq == s.position+1 {
		s.show(stored.Seq, s.user, m.text)
	}
}

func (s *session) onRejected(rejected *chatv1.Rejected) {
	if m := s.settle(rejected.MessageId); m != nil {
		s.rejected++
		s.tell("  refused for good: %q: %s", m.text, rejected.Detail)
	}
}

func (s *session) onDeferred(d *chatv1.Deferred) error {
	if d.Reason == chatv1.DeferredReason_DEFERRED_REASON_AFTER_SEQ_AHEAD {
		s.forgetHistory()
		return &lostError{why: "another history"}
	}
	for _, m := range s.outbox {
		if m.id == d.MessageId {
			m.state = deferred
			at := time.Now().Add(max(d.RetryAfter.AsDuration(), resendDelay))
			if at.After(s.resumeAt) {
				s.resumeAt = at
			}
			return nil
		}
	}
	s.abandons = append(s.abandons, d.MessageId) // others must not wait for it
	return nil
}

func (s *session) onDelivered(envelope *chatv1.Envelope) error {
	own, other := envelope.GetSender() == s.user, envelope.GetSender()
	if own {
		other = envelope.GetRecipient()
	}
	if other != s.peer {
		return nil // of another conversation of this user
	}
	if own {
		if m := s.settle(envelope.MessageId); m != nil {
			s.stored++
			s.tell("  stored [%d], as it turns out", envelope.Seq)
			if m.state == deferred {
				s.abandons = append(s.abandons, m.id)
			}
		}
	}
	switch {
	case envelope.Seq <= s.position:
		return nil
	case envelope.Seq > s.position+1:
		return &lostError{why: "a message is missing in the stream"}
	}
	text := "(unknown kind)"
	if kind, ok := envelope.GetBody().GetKind().(*chatv1.Body_Text); ok {
		text = kind.Text
	}
	s.show(envelope.Seq, envelope.Sender, text)
	return nil
}

func (s *session) onReceipt(receipt *chatv1.ReceiptAdvanced) {
	if receipt.Peer != s.peer || receipt.User != s.peer {
		return
	}
	// After a reconnect an older one may come; what was shown never goes back.
	if read := receipt.GetCursor().GetRead(); read > s.peerRead {
		s.peerRead = read
		s.tell("  %s has read up to [%d]", receipt.User, read)
	}
}

func (s *session) onCursorRejected(rejected *chatv1.CursorRejected) error {
	if rejected.Reason != chatv1.CursorRejectedReason_CURSOR_REJECTED_REASON_UNAVAILABLE {
		return &stopError{"a cursor was refused: " + rejected.Detail}
	}
	s.readAsked = s.readConfirmed
	s.cursorAt = time.Now().Add(cursorRetryDelay)
	return nil
}

func (s *session) onGoodbye(goodbye *chatv1.Goodbye) error {
	reason := strings.ToLower(strings.TrimPrefix(goodbye.Reason.String(), "GOODBYE_REASON_"))
	why := fmt.Sprintf("%s: %s", reason, goodbye.Detail)
	switch goodbye.Reason {
	case chatv1.GoodbyeReason_GOODBYE_REASON_SUPERSEDED,
		chatv1.GoodbyeReason_GOODBYE_REASON_UNAUTHENTICATED,
		chatv1.GoodbyeReason_GOODBYE_REASON_PROTOCOL_ERROR:
		return &stopError{why}
	case chatv1.GoodbyeReason_GOODBYE_REASON_HISTORY_CHANGED:
		s.forgetHistory()
	}
	return &lostError{why, goodbye.RetryAfter.AsDuration()}
}

// show is called once for each message, when it has its place; here, that is
// reading it.
func (s *session) show(seq uint64, sender, text string) {
	s.position = seq
	if sender != s.user {
		s.read = seq
	}
	s.tell("[%d] %s: %s", seq, sender, text)
}

// settle takes a message out of the outbox, if it is there.
func (s *session) settle(id string) *pending {
	for i, m := range s.outbox {
		if m.id == id {
			s.outbox = append(s.outbox[:i], s.outbox[i+1:]...)
			return m
		}
	}
	return nil
}
