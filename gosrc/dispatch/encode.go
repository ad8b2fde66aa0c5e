package dispatch

import (
	"encoding/binary"
	"unsafe"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
)

// appendStart appends the payload of a call start record to b, with the first part of the
// body.
func appendStart(b []byte, r *call.Request, body []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, link.CallFixedSize)...)
	b = append(b, r.Method...)
	b = append(b, r.Path...)
	b = append(b, r.RawPath...)
	b = append(b, r.Query...)
	b = append(b, r.Client.Host...)
	b = append(b, r.Server.Host...)
	fieldsAt := len(b)
	for i := range r.Fields {
		f := &r.Fields[i]
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Value)))
		b = append(b, f.Name...)
		b = append(b, f.Value...)
	}
	fieldBytes := len(b) - fieldsAt
	b = append(b, body...)

	fixed := b[at : at+link.CallFixedSize]
	fixed[link.CallScheme] = byte(r.Scheme)
	fixed[link.CallHTTPVersion] = r.Version
	binary.LittleEndian.PutUint16(fixed[link.CallMethodLength:], uint16(len(r.Method)))
	binary.LittleEndian.PutUint32(fixed[link.CallPathLength:], uint32(len(r.Path)))
	binary.LittleEndian.PutUint32(fixed[link.CallRawPathLength:], uint32(len(r.RawPath)))
	binary.LittleEndian.PutUint32(fixed[link.CallQueryLength:], uint32(len(r.Query)))
	binary.LittleEndian.PutUint32(fixed[link.CallFieldCount:], uint32(len(r.Fields)))
	binary.LittleEndian.PutUint32(fixed[link.CallBodyLength:], uint32(len(body)))
	binary.LittleEndian.PutUint16(fixed[link.CallClientHostLength:], uint16(len(r.Client.Host)))
	binary.LittleEndian.PutUint16(fixed[link.CallServerHostLength:], uint16(len(r.Server.Host)))
	binary.LittleEndian.PutUint32(fixed[link.CallClientPort:], uint32(r.Client.Port))
	binary.LittleEndian.PutUint32(fixed[link.CallServerPort:], uint32(r.Server.Port))
	binary.LittleEndian.PutUint32(fixed[link.CallFieldBytes:], uint32(fieldBytes))
	return b
}

// startFlags are the flags of a call start record. whole: it has the whole body.
func startFlags(r *call.Request, whole bool) uint16 {
	flags := uint16(0)
	if whole {
		flags |= link.FlagLast
	} else {
		flags |= link.FlagWantBody
	}
	if r.RawPath == nil {
		flags |= link.FlagPathIsRaw
	}
	return flags
}

// readStart reads what the access log needs back from an encoded start, which this
// package wrote.
func readStart(start []byte, l *AccessLine) {
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(start[at:])) }
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(start[at:])) }
	rest := start[link.CallFixedSize:]
	take := func(n int) []byte {
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	l.Version = start[link.CallHTTPVersion]
	l.ClientPort = int32(u32(link.CallClientPort))
	l.Method = take(u16(link.CallMethodLength))
	l.Path = take(u32(link.CallPathLength))
	take(u32(link.CallRawPathLength))
	l.Query = take(u32(link.CallQueryLength))
	host := take(u16(link.CallClientHostLength))
	l.Client = unsafe.String(unsafe.SliceData(host), len(host))
}
