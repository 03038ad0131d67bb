package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/onefile"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// ofFile reports whether a command is about a file of this machine, for which no daemon is needed.
func ofFile(c mgmt.Command) bool {
	return slices.Contains([]mgmt.Command{mgmt.Encrypt, mgmt.Decrypt, mgmt.Compress, mgmt.Decompress}, c)
}

// convert encrypts, decrypts, compresses or decompresses a file.
func (p *program) convert(ctx context.Context, c call) int {
	format, err := p.outputFormat(c.options)
	if err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	if len(c.words) > 1 {
		return p.decryptToStandardOutput(ctx, c)
	}
	client := &mgmt.Client{Version: version.Version, Output: format.Output(), Now: p.now}
	doc := mgmt.Local(ctx, converter{p, c.options}, mgmt.Options{Version: version.Version, Now: p.now}, client, c.form.command, c.args())
	if ctx.Err() != nil {
		p.complain("interrupted")
		return exitInterrupted
	}
	return p.show(doc, format, c)
}

func (p *program) decryptToStandardOutput(ctx context.Context, c call) int {
	if c.words[1] != standardOutput {
		p.complain(fmt.Sprintf("'%s' after the file: only - is possible, for standard output", c.words[1]))
		return exitUsage
	}
	master, err := p.masterKey()
	if err == nil {
		err = onefile.DecryptTo(ctx, c.words[0], master, p.stdout)
	}
	if err != nil {
		p.complain(err.Error())
		return exitRefused
	}
	return exitOK
}

// A converter answers the commands about a file.
type converter struct {
	program *program
	options *console.Args
}

// Handle implements [mgmt.Handler].
func (k converter) Handle(ctx context.Context, req *mgmt.Request) (mgmt.Response, error) {
	dest, err := k.convert(ctx, req)
	if err == nil {
		return mgmt.Response{"DestinationFile": dest}, nil
	}
	missing, code := req.Command.FileCodes(container.None)
	if errors.Is(err, fs.ErrNotExist) {
		code = missing
	}
	return nil, &mgmt.Error{Code: code, Workflow: req.Command.String(), Err: err}
}

func (k converter) convert(ctx context.Context, req *mgmt.Request) (string, error) {
	path := req.Args.Text("SourceFile")
	switch req.Command {
	case mgmt.Decompress:
		return onefile.Decompress(ctx, path)
	case mgmt.Compress:
		codec, level, err := k.codec()
		if err != nil {
			return "", err
		}
		return onefile.Compress(ctx, path, codec, level)
	}
	if req.Command == mgmt.Decrypt {
		master, err := k.program.masterKey()
		if err != nil {
			return "", err
		}
		return onefile.Decrypt(ctx, path, master)
	}
	cipher, err := k.cipher()
	if err != nil {
		return "", err
	}
	master, err := k.program.masterKey()
	if err != nil {
		return "", err
	}
	return onefile.Encrypt(ctx, path, cipher, master)
}

// settings returns what the configuration says, where there is one.
func (k converter) settings() (*config.CLI, error) {
	path, err := k.program.configFile(k.options)
	if errors.As(err, new(*usageError)) {
		return &config.CLI{}, nil
	}
	if err != nil {
		return nil, err
	}
	return config.ParseCLI(path)
}

const compressionLevel = 3

// codec returns that of --compress, else the configured one, else zstd.
func (k converter) codec() (container.Codec, int, error) {
	if i := slices.Index(compressWords(), k.options.Value("--compress")); i > 0 {
		return container.Codec(coding(k.options).Compression), compressionLevel, nil
	}
	conf, err := k.settings()
	if err != nil {
		return container.None, 0, err
	}
	if conf.Compression == config.None {
		return container.Zstd, compressionLevel, nil
	}
	codec, err := container.ParseCodec(conf.Compression.String())
	return codec, compressionLevel, err
}

// cipher returns that of --encrypt, else the configured one.
func (k converter) cipher() (container.Cipher, error) {
	switch coding(k.options).Encryption {
	case mgmt.EncryptionAES256:
		return container.AES256, nil
	case mgmt.EncryptionAES192:
		return container.AES192, nil
	case mgmt.EncryptionAES128:
		return container.AES128, nil
	}
	conf, err := k.settings()
	if err != nil {
		return container.Plain, err
	}
	cipher, err := container.ParseCipher(conf.Encryption.String())
	if err == nil && cipher == container.Plain {
		err = errors.New("encryption is not configured: set it, or say --encrypt aes256")
	}
	return cipher, err
}
