package vault

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"unicode/utf8"
)

// masked is what every printed form of a secret shows.
const masked = "***"

// A Secret holds a password, a passphrase or an access key. Every way of printing it (fmt with any verb,
// log/slog, text encoders) shows "***", also when it is a field of a printed struct; [Secret.Reveal] is the only way to the
// text, so a search for Reveal finds each use.
//
// JSON encoding is refused rather than masked: a masked password that is read back would fail far from its cause.
// What must travel over the control socket to a worker is declared as [SecretWire].
//
// The zero Secret is empty.
type Secret struct {
	// A pointer, because fmt prints the address of a nested pointer and never follows it:
	// an unexported field of type Secret stays hidden although fmt cannot call its methods.
	text *string
}

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text. The caller must not log it or put it into an error.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares two secrets in a time that depends only on their lengths.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String implements [fmt.Stringer].
func (s Secret) String() string { return masked }

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return masked }

// Format implements [fmt.Formatter] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// MarshalJSON always fails.
func (s Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("vault: a Secret is not written as JSON: declare the field as SecretWire if it must reach a worker")
}

// A SecretWire is a Secret whose JSON form is the plain text. It exists for messages on the control socket between supervisor and
// worker, which only these two processes can read. It prints as "***" like any Secret; never write its JSON to a file or a log.
type SecretWire struct{ Secret }

// NewSecretWire returns a SecretWire that holds text.
func NewSecretWire(text string) SecretWire { return SecretWire{NewSecret(text)} }

// Wire returns the secret in the form that may travel over the control socket.
func (s Secret) Wire() SecretWire { return SecretWire{s} }

// MarshalJSON writes the plain text. Text that is not UTF-8 is an error, because JSON would change it.
func (s SecretWire) MarshalJSON() ([]byte, error) {
	if !utf8.ValidString(s.Reveal()) {
		return nil, errors.New("vault: a secret that is not valid UTF-8 cannot travel as JSON")
	}
	return json.Marshal(s.Reveal())
}

// UnmarshalJSON reads the plain text.
func (s *SecretWire) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		// The text of the original error may quote the input.
		return errors.New("vault: a secret in a message is not a JSON string")
	}
	*s = NewSecretWire(text)
	return nil
}
