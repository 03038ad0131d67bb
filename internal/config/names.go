package config

// MainKeys returns the names of the keys of the section [pgmoneta], in the order in which they are shown.
func MainKeys() []string { return names(mainKeys()) }

// ServerKeys returns the names of the keys of a server section, in the order in which they are shown.
func ServerKeys() []string { return names(serverKeys()) }

func names[S any](keys []key[S]) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.name
	}
	return list
}

// ServerNames returns the names of the servers in a daemon's configuration file, nil of one that cannot be read.
// It is for completing a command line, where nobody can be told what is wrong.
func ServerNames(path string) []string {
	c, err := Parse(path)
	if err != nil {
		return nil
	}
	var list []string
	for _, s := range c.Servers {
		list = append(list, s.Name)
	}
	return list
}
