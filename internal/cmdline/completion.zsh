#compdef @NAME@
# Completion of @NAME@ in zsh: the program itself says what may come next.
_@NAME@() {
	local line word
	local -a candidates
	for line in "${(@f)$(_call_program words ${(q)${(Q)words[1]}} completion words -- ${(q)${(@Q)words[2,CURRENT]}} 2>/dev/null)}"; do
		word=${line%%$'\t'*}
		case $word in
		'') ;;
		:files) _files ;;
		:directories) _files -/ ;;
		*) candidates+=("${word//:/\\:}:${line#*$'\t'}") ;;
		esac
	done
	(( ${#candidates} )) && _describe '@NAME@' candidates
}
if [ "${funcstack[1]}" = "_@NAME@" ]; then
	_@NAME@ "$@"
else
	compdef _@NAME@ @NAME@
fi
