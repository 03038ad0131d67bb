package mgmt

import "context"

// Local has a request handled in this process. It returns the document that a
// server with handler h and options o would send to the client, whose connection
// is not used.
func Local(ctx context.Context, h Handler, o Options, client *Client, cmd Command, args Document) Document {
	return NewServer(h, o).answer(ctx, client.request(cmd, args).Clone(), Peer{UID: -1})
}
