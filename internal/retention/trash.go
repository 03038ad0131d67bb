package retention

// waiting decides what becomes of the backups in the trash. Nothing goes while held, or
// before it is known since when it is there; a mark from the future waits for its time.
func (d *decider) waiting(held bool) []Waiting {
	var list []Waiting
	for _, b := range d.Trash {
		w := Waiting{Label: b.Label, DeletedAt: b.DeletedAt}
		if !b.DeletedAt.IsZero() {
			w.Until = b.DeletedAt.Add(d.Delay)
			w.Purge = !held && !b.DeletedAt.After(d.now) && !d.now.Before(w.Until)
		}
		list = append(list, w)
	}
	return list
}

// trashNeeds is the WAL that must stay so that what is in the trash, or goes there now,
// can be brought back as it was: what makes it consistent, and what leads from it to the
// backups that are left, as long as that is unbroken.
func (d *decider) trashNeeds(trash []Waiting) []span {
	var list []span
	need := func(b Backup) {
		list = append(list, closed(b))
		if valid := d.valid(); b.Valid && len(valid) > 0 && d.follows(b, valid[len(valid)-1]) {
			list = append(list, open(b))
		}
	}
	for i, b := range d.Trash { // in the order of trash
		if !trash[i].Purge && b.Known {
			need(b.Backup)
		}
	}
	if d.Delay <= 0 {
		return list
	}
	for _, b := range d.Backups {
		if b.Known && !d.stays(b) {
			need(b)
		}
	}
	return list
}
