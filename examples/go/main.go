// Command chat talks to one person from the terminal: every line of input is a
// message.
//
//	DUOLOGUE_TOKEN=... go run . -peer bob
//
// Here is the I/O: the connection, and waiting before the next one. What is said on
// it is decided in session.go.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	chatv1 "example.com/duologue-chat/gen/duologue/chat/v1"
)

const (
	backoffMin, backoffMax = 100 * time.Millisecond, 30 * time.Second
	retryAfterMax          = 10 * time.Minute
	welcomeTimeout         = 10 * time.Second // connecting included
	callTimeout            = 10 * time.Second
	pageSize               = 20
	maxLineBytes           = 64 * 1024
)

// chat is one conversation, over as many connections as it takes.
type chat struct {
	addr, token string
	reconnects  int

	mu      sync.Mutex // guards session
	session session
	wake    chan struct{} // there may be something to send
}

// run connects again and again until all is said and answered.
func (c *chat) run(ctx context.Context) error {
	for failures := 0; ; c.reconnects++ {
		err := c.converse(ctx)
		var lost *lostError
		if !errors.As(err, &lost) {
			return err
		}
		failures++
		if c.session.caughtUp {
			failures = 1
		}
		// Full jitter, on top of what the server asks for: clients that lost one
		// server do not come back all at once.
		ceiling := min(backoffMin<<min(failures-1, 16), backoffMax)
		delay := min(lost.retryAfter, retryAfterMax) + mathrand.N(ceiling+1)
		fmt.Printf("* disconnected: %v; next try in %.2f s\n", lost, delay.Seconds())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// converse is one connection, from Hello to the end of the stream. Its error is nil
// when all is said and answered.
func (c *chat) converse(ctx context.Context) error {
	// A channel for each connect: waiting between connects is done in run, and not
	// by gRPC on top of that.
	conn, err := c.dial()
	if err != nil {
		return &stopError{err.Error()}
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(c.authorized(ctx))
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()

	c.mu.Lock()
	c.session.begin()
	hello := c.session.hello()
	c.mu.Unlock()

	noWelcome := time.AfterFunc(welcomeTimeout, cancel)
	stream, err := chatv1.NewChatServiceClient(conn).Converse(ctx)
	if err != nil {
		return c.ended(err)
	}
	// io.EOF says only that the stream has ended; Recv says why.
	if err := stream.Send(hello); err != nil && err != io.EOF {
		return c.ended(err)
	}
	for welcomed := false; ; welcomed = true {
		response, err := stream.Recv()
		if err != nil {
			return c.ended(err)
		}
		if err := c.receive(response); err != nil {
			return err
		}
		if !welcomed {
			noWelcome.Stop()
			// What is not answered is sent again at once, and not only when what was
			// missed is read: the server knows by the id what it has stored already.
			if frame, _, _ := c.next(); frame != nil {
				_ = stream.Send(frame)
			}
			sender.Go(func() { c.send(stream) })
		}
	}
}

func (c *chat) receive(response *chatv1.ConverseResponse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.poke()
	return c.session.receive(response)
}

// send writes what the session has to say, until it has said all or the stream has
// ended; then who reads the stream is told why.
func (c *chat) send(stream chatv1.ChatService_ConverseClient) {
	for {
		frame, deadline, saidAll := c.next()
		if saidAll {
			// The server answers what is under way, then ends the stream with OK.
			_ = stream.CloseSend()
			return
		}
		if frame != nil {
			if stream.Send(frame) != nil {
				return
			}
			continue
		}
		var due <-chan time.Time
		if !deadline.IsZero() {
			due = time.After(time.Until(deadline))
		}
		select {
		case <-c.wake:
		case <-due:
		case <-stream.Context().Done():
			return
		}
	}
}

func (c *chat) next() (frame *chatv1.ConverseRequest, deadline time.Time, saidAll bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.hasSaidAll() {
		return nil, time.Time{}, true
	}
	return c.session.nextFrame(), c.session.nextDeadline(), false
}

// poke wakes send; it never blocks.
func (c *chat) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ended says what follows from the end of the stream.
func (c *chat) ended(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == io.EOF {
		if c.session.isDone() {
			return nil
		}
		return &lostError{why: "the server ended the stream"}
	}
	st := status.Convert(err)
	why := fmt.Sprintf("%v: %s", st.Code(), st.Message())
	switch st.Code() {
	case codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return &stopError{why}
	case codes.FailedPrecondition:
		c.session.forgetHistory()
	}
	for _, detail := range st.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return &lostError{why, retry.GetRetryDelay().AsDuration()}
		}
	}
	return &lostError{why: why}
}

func (c *chat) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(c.addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A connection that died without a word is noticed by HTTP/2 PING.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    15 * time.Second,
			Timeout: 10 * time.Second,
		}))
}

func (c *chat) authorized(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

// readInput makes a message of every line.
func (c *chat) readInput(input io.Reader) error {
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		if text := lines.Text(); text != "" {
			c.mu.Lock()
			c.session.send(text)
			c.mu.Unlock()
			c.poke()
		}
	}
	c.mu.Lock()
	c.session.noMoreInput = true
	c.mu.Unlock()
	c.poke()
	return lines.Err()
}

func (c *chat) printHistory(ctx context.Context) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := chatv1.NewChatServiceClient(conn)
	request := &chatv1.ListMessagesRequest{
		Peer:      c.session.peer,
		PageSize:  pageSize,
		Direction: chatv1.Direction_DIRECTION_FORWARD,
	}
	for {
		ctx, cancel := context.WithTimeout(c.authorized(ctx), callTimeout)
		page, err := client.ListMessages(ctx, request)
		cancel()
		if err != nil {
			return err
		}
		for _, m := range page.Messages {
			fmt.Printf("history [%d] %s: %s\n", m.Seq, m.Sender, m.GetBody().GetText())
		}
		if page.NextPageToken == "" {
			return nil
		}
		request.PageToken = page.NextPageToken
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:50051", "host:port")
	peer := flag.String("peer", "", "whom to talk to")
	token := flag.String("token", "",
		"bearer token; by default from DUOLOGUE_TOKEN, which no list of processes shows")
	history := flag.Bool("history", false, "print it at the end")
	flag.Parse()
	if *token == "" {
		*token = os.Getenv("DUOLOGUE_TOKEN")
	}
	if *peer == "" || *token == "" {
		return errors.New("give -peer, and -token or DUOLOGUE_TOKEN")
	}

	ctx := context.Background()
	c := &chat{addr: *addr, token: *token, wake: make(chan struct{}, 1)}
	c.session = session{device: device{id: rand.Text()}, peer: *peer}
	c.session.tell = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	input := make(chan error, 1)
	go func() { input <- c.readInput(os.Stdin) }()
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("stopped: %w", err)
	}
	if err := <-input; err != nil {
		return err
	}
	s := &c.session
	fmt.Printf("* done: %d stored, %d answered as duplicates, %d refused, %d reconnects, read up to [%d]\n",
		s.stored, s.duplicates, s.rejected, c.reconnects, s.readConfirmed)
	if *history {
		if err := c.printHistory(ctx); err != nil {
			return err
		}
	}
	if s.rejected > 0 {
		return errors.New("not everything was taken")
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
