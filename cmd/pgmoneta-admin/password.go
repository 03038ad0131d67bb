package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// passwordCharacters are those of a generated password: none of them ends a line of a users file or needs quotes in a configuration file comment.
const passwordCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + `!@$%^&*()-_=+[{]}\|:'",<.>/?`

// PasswordVariable is the environment variable that holds a password.
const passwordVariable = "PGMONETA_PASSWORD"

// passwordKind says which password is wanted.
type passwordKind struct {
	prompt string
	check  func(vault.Secret) error
	show   bool // a generated one is printed
}

// password returns the password from the first source there is: -P, -g, the environment, the prompt.
func (p *program) password(req *request, kind passwordKind) (vault.Secret, error) {
	if text, given := req.args.values["password"]; given {
		return checked(vault.NewSecret(text), kind)
	}
	if req.args.has("generate") {
		return p.generated(req.length, kind)
	}
	if text, _ := p.env(passwordVariable); text != "" {
		return checked(vault.NewSecret(text), kind)
	}
	return p.ask(kind)
}

func checked(s vault.Secret, kind passwordKind) (vault.Secret, error) {
	if err := kind.check(s); err != nil {
		return vault.Secret{}, err
	}
	return s, nil
}

func (p *program) generated(length int, kind passwordKind) (vault.Secret, error) {
	text, err := generatePassword(length)
	if err != nil {
		return vault.Secret{}, err
	}
	s, err := checked(vault.NewSecret(text), kind)
	if err == nil && kind.show {
		_, err = fmt.Fprintf(p.stdout, "Password : %s\n", text)
	}
	return s, err
}

// generatePassword returns length characters, each as likely as the others.
func generatePassword(length int) (string, error) {
	most := big.NewInt(int64(len(passwordCharacters)))
	var b strings.Builder
	for range length {
		i, err := rand.Int(rand.Reader, most)
		if err != nil {
			return "", fmt.Errorf("read random bytes: %w", err)
		}
		b.WriteByte(passwordCharacters[i.Int64()])
	}
	return b.String(), nil
}

// ask prompts for a password twice, until it is acceptable and both are the same.
func (p *program) ask(kind passwordKind) (vault.Secret, error) {
	for {
		text, err := p.promptHidden(kind.prompt)
		if err != nil {
			return vault.Secret{}, err
		}
		first := vault.NewSecret(text)
		if err := kind.check(first); err != nil {
			p.warn(err.Error())
			continue
		}
		text, err = p.promptHidden("Verify   : ")
		if err != nil {
			return vault.Secret{}, err
		}
		if first.Equal(vault.NewSecret(text)) {
			return first, nil
		}
		p.warn("Passwords do not match")
	}
}

// userName returns the user from -U or the prompt.
func (p *program) userName(req *request) (string, error) {
	if user, given := req.args.values["user"]; given {
		return user, vault.CheckUserName(user)
	}
	for {
		user, err := p.prompt("User name: ")
		if err != nil {
			return "", err
		}
		err = vault.CheckUserName(user)
		if err == nil {
			return user, nil
		}
		p.warn(err.Error())
	}
}

// prompt asks for one line.
func (p *program) prompt(question string) (string, error) {
	if _, err := io.WriteString(p.stdout, question); err != nil {
		return "", err
	}
	return p.readLine()
}

// promptHidden asks for one line that is not shown on the terminal.
func (p *program) promptHidden(question string) (string, error) {
	if p.readHidden == nil {
		return p.prompt(question)
	}
	if _, err := io.WriteString(p.stdout, question); err != nil {
		return "", err
	}
	text, err := p.readHidden()
	_, _ = io.WriteString(p.stdout, "\n")
	return text, inputError(err)
}

// maxInput is the longest line that is read from stdin, in bytes.
const maxInput = 64 << 10

// readLine reads a line from stdin without its end. The last line may lack one.
func (p *program) readLine() (string, error) {
	var b strings.Builder
	for b.Len() < maxInput {
		c, err := p.stdin.ReadByte()
		if errors.Is(err, io.EOF) && b.Len() > 0 {
			break
		}
		if err != nil {
			return "", inputError(err)
		}
		if c == '\n' {
			break
		}
		b.WriteByte(c)
	}
	return strings.TrimSuffix(b.String(), "\r"), nil
}

// inputError explains the end of the input.
func inputError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the input ended before everything was asked: use -U and -P, -g or %s", passwordVariable)
	}
	return err
}
