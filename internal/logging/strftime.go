package logging

import (
	"fmt"
	"strconv"
	"time"
)

// DefaultPrefix is the default of log_line_prefix.
const DefaultPrefix = "%Y-%m-%d %H:%M:%S"

// AppendTime appends t formatted by a strftime pattern in the C locale. It knows the conversions of C99 that
// make sense in a log (%a %A %b %B %c %C %d %D %e %F %g %G %h %H %I %j %k %l %m %M %n %p %r %R %s %S %t %T %u %V %w %x %X %y %Y %z %Z %%) and %f,
// microseconds. Anything else stays as it is.
func AppendTime(b []byte, pattern string, t time.Time) []byte {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			b = append(b, pattern[i])
			continue
		}
		i++
		b = appendConversion(b, pattern[i], t)
	}
	return b
}

// appendConversion appends one conversion.
func appendConversion(b []byte, c byte, t time.Time) []byte {
	if layout, ok := layouts[c]; ok {
		return t.AppendFormat(b, layout)
	}
	isoYear, isoWeek := t.ISOWeek()
	switch c {
	case 'C':
		return fmt.Appendf(b, "%02d", t.Year()/100)
	case 'f':
		return fmt.Appendf(b, "%06d", t.Nanosecond()/1000)
	case 'g':
		return fmt.Appendf(b, "%02d", isoYear%100)
	case 'G':
		return fmt.Appendf(b, "%04d", isoYear)
	case 'k':
		return fmt.Appendf(b, "%2d", t.Hour())
	case 'l':
		return fmt.Appendf(b, "%2d", (t.Hour()+11)%12+1)
	case 's':
		return strconv.AppendInt(b, t.Unix(), 10)
	case 'u':
		return strconv.AppendInt(b, int64(t.Weekday()+6)%7+1, 10)
	case 'V':
		return fmt.Appendf(b, "%02d", isoWeek)
	case 'w':
		return strconv.AppendInt(b, int64(t.Weekday()), 10)
	case '%':
		return append(b, '%')
	case 'n':
		return append(b, '\n')
	case 't':
		return append(b, '\t')
	}
	return append(b, '%', c)
}

// layouts maps the conversions that package time knows.
var layouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan",
	'c': "Mon Jan _2 15:04:05 2006", 'd': "02", 'D': "01/02/06", 'e': "_2", 'F': "2006-01-02",
	'H': "15", 'I': "03", 'j': "002", 'm': "01", 'M': "04", 'p': "PM",
	'r': "03:04:05 PM", 'R': "15:04", 'S': "05", 'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05",
	'y': "06", 'Y': "2006", 'z': "-0700", 'Z': "MST",
}
