package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

const passwordVariable = "PGMONETA_PASSWORD"

// address returns where the remote daemon is, "" for the one on this machine. Options
// count before the file.
func address(o *console.Args, cli *config.CLI) (string, error) {
	host, port := cli.Host, cli.Port
	if o.Has("--host") {
		host = o.Value("--host")
	}
	if o.Has("--port") {
		n, err := strconv.Atoi(o.Value("--port"))
		if err != nil || n < 1 || n > 65535 {
			return "", fmt.Errorf("port '%s' is not between 1 and 65535", o.Value("--port"))
		}
		port = n
	}
	if host == "" || port == 0 {
		return "", nil
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// dialRemote connects to a daemon over TCP. What is missing is asked for, once.
func (p *program) dialRemote(ctx context.Context, conn *connection) (*mgmt.Client, error) {
	in := bufio.NewReader(p.stdin)
	for conn.user == "" {
		line, err := p.ask(in, "User name: ")
		if err != nil {
			return nil, err
		}
		conn.user = line
	}
	password, err := p.password(in, conn)
	if err != nil {
		return nil, err
	}
	conn.password = &password
	config, err := p.tls(conn.remote)
	if err != nil {
		return nil, err
	}
	return mgmt.DialRemote(ctx, mgmt.Remote{Address: conn.remote, User: conn.user, Password: password, TLS: config})
}

// password returns the password from the option, the environment or the prompt.
func (p *program) password(in *bufio.Reader, conn *connection) (vault.Secret, error) {
	if conn.password != nil {
		return *conn.password, vault.CheckPassword(*conn.password)
	}
	if text, _ := p.env(passwordVariable); text != "" {
		s := vault.NewSecret(text)
		return s, vault.CheckPassword(s)
	}
	for {
		text, err := p.askHidden(in, "Password : ")
		if err != nil {
			return vault.Secret{}, err
		}
		s := vault.NewSecret(text)
		if err := vault.CheckPassword(s); err == nil {
			return s, nil
		} else {
			p.complain(err.Error())
		}
	}
}

// ask asks for a line. The question goes to standard error: what goes to standard
// output may be read by a program.
func (p *program) ask(in *bufio.Reader, question string) (string, error) {
	_, _ = io.WriteString(p.stderr, question)
	line, err := in.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	if err != nil {
		return "", fmt.Errorf("the input ended before everything was asked: use --user (-U) and %s", passwordVariable)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askHidden asks for a line without showing it.
func (p *program) askHidden(in *bufio.Reader, question string) (string, error) {
	f, ok := p.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p.ask(in, question)
	}
	_, _ = io.WriteString(p.stderr, question)
	text, err := term.ReadPassword(int(f.Fd()))
	_, _ = io.WriteString(p.stderr, "\n")
	return string(text), err
}

// tls returns how to encrypt the connection: with pgmoneta.crt and pgmoneta.key as
// certificate of ours, root.crt as the authority to trust, all of them in
// $HOME/.pgmoneta. Without any of these files the connection is not encrypted.
func (p *program) tls(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	home, _ := p.env("HOME")
	dir := filepath.Join(home, ".pgmoneta")
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	root, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(root) {
			return nil, fmt.Errorf("%s: no certificate in it", filepath.Join(dir, "root.crt"))
		}
	}
	pair, perr := tls.LoadX509KeyPair(filepath.Join(dir, "pgmoneta.crt"), filepath.Join(dir, "pgmoneta.key"))
	if perr != nil && !errors.Is(perr, fs.ErrNotExist) {
		return nil, perr
	}
	if perr == nil {
		c.Certificates = []tls.Certificate{pair}
	}
	if err != nil && perr != nil || home == "" {
		return nil, nil
	}
	return c, nil
}
